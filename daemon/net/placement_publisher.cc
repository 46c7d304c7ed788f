// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/placement_publisher.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/steady_timer.hpp>
#include <chrono>

#include "daemon/formats/wire.h"
#include "daemon/net/curve_server.h"
#include "daemon/net/zmq_readable.h"
#include "daemon/net/zmq_socket.h"

namespace eplbd {
namespace {

using Clock = std::chrono::steady_clock;

// All get the placement each time that somebody joins: so it goes out at most 50 times a second for
// a while, and then once a second, however many join and leave.
constexpr auto kRejoinInterval = std::chrono::milliseconds(20);
constexpr auto kRejoinRefill = std::chrono::seconds(1);
constexpr int kRejoinBurst = 200;
// A subscriber that is this far behind loses messages; the next heartbeat tells it to join anew.
constexpr int kSendHighWaterMark = 16;

// Subscriptions are a byte 1 and a topic: longer messages than that are none.
constexpr int64_t kMaxSubscriptionBytes = 1024;
// libzmq keeps each in memory. Those to our topic, or to what it begins with, are few.
constexpr int kMaxSubscriptionsElsewhere = 64;
// Read in small batches, so that one peer's flood of them does not hold up the loop.
constexpr int kReceiveHighWaterMark = 8;

}  // namespace

struct PlacementPublisher::Impl {
  Impl(boost::asio::io_context& io, zmq::context_t& zmq_context, std::string topic_name,
       PublisherHandler handlers)
      : topic(std::move(topic_name)),
        handler(std::move(handlers)),
        timer(io),
        socket(zmq_context, zmq::socket_type::xpub) {}

  void send(std::string_view payload) {
    const std::string number = encode_sequence(sequence++);
    // XPUB never blocks: what a slow subscriber has no room for is dropped for that one. Nor does
    // it throw where a signal interrupts it, as cppzmq's send() would.
    zmq_send(socket.handle(), topic.data(), topic.size(), ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(socket.handle(), number.data(), number.size(), ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(socket.handle(), payload.data(), payload.size(), ZMQ_DONTWAIT);
    readable->recheck();
  }

  void send_placement() {
    last_sent = Clock::now();
    send(placement);
  }

  // Subscribers come and go: [1 topic] and [0 topic].
  bool drain() {
    constexpr int kBudget = 256;
    for (int i = 0; i < kBudget; ++i) {
      zmq::message_t frame;
      if (!receive(socket, frame)) return false;
      const int connection = zmq_msg_get(frame.handle(), ZMQ_SRCFD);
      peers->heard(connection, property(frame, "User-Id"));
      const std::string_view text = frame.to_string_view();
      if (text.empty() || text[0] != 1) continue;
      if (topic.starts_with(text.substr(1))) {
        serve_joined(connection);
      } else if (peers->subscribed_elsewhere(connection) > kMaxSubscriptionsElsewhere) {
        peers->end(connection);
      }
    }
    return true;
  }

  // When the next one may go out for somebody who joined.
  Clock::time_point next_turn(Clock::time_point now) {
    const auto refills = (now - refilled) / kRejoinRefill;
    refilled += refills * kRejoinRefill;
    budget = static_cast<int>(std::min<int64_t>(kRejoinBurst, budget + refills));
    return std::max(last_sent + kRejoinInterval, budget > 0 ? now : refilled + kRejoinRefill);
  }

  void serve_joined(int connection) {
    const auto now = Clock::now();
    const auto at = std::max(peers->next_turn(connection, now), next_turn(now));
    if (pending && at >= pending_at) return;
    pending = true;
    pending_at = at;
    timer.expires_at(at);  // often now: after this drain; ends a longer wait
    timer.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      pending = false;
      if (placement.empty() || !handler.may_publish()) return;
      --budget;
      send_placement();
      handler.joined();
    });
  }

  std::string topic;
  PublisherHandler handler;
  boost::asio::steady_timer timer;
  zmq::socket_t socket;
  uint64_t sequence = 0;
  std::string placement;
  Clock::time_point last_sent{};
  bool pending = false;  // somebody joined, and will get it at
  Clock::time_point pending_at{};
  int budget = kRejoinBurst;
  Clock::time_point refilled = Clock::now();
  std::vector<std::string> endpoints;
  const CurveServer* curve = nullptr;
  std::unique_ptr<ZmqPeers> peers;
  std::unique_ptr<ZmqReadable> readable;
};

PlacementPublisher::PlacementPublisher(boost::asio::io_context& io, zmq::context_t& zmq_context,
                                       std::string topic, const std::vector<std::string>& bind,
                                       const CurveServer* curve, PublisherHandler handler,
                                       ZmqPeerLimits limits)
    : impl_(std::make_unique<Impl>(io, zmq_context, std::move(topic), std::move(handler))) {
  Impl& impl = *impl_;
  set_server_options(impl.socket, curve, kPlacementsDomain);
  impl.socket.set(zmq::sockopt::xpub_verbose, true);  // every subscription, not a topic's first
  impl.socket.set(zmq::sockopt::sndhwm, kSendHighWaterMark);
  impl.socket.set(zmq::sockopt::maxmsgsize, kMaxSubscriptionBytes);
  impl.socket.set(zmq::sockopt::rcvhwm, kReceiveHighWaterMark);
  impl.curve = curve;
  impl.peers = std::make_unique<ZmqPeers>(
      io, zmq_context, impl.socket, limits, [&impl](ZmqPeers::Event event) {
        const bool failed = event == ZmqPeers::Event::handshake_failed;
        if (failed && impl.curve != nullptr) impl.handler.denied();
      });
  impl.endpoints = bind_all(impl.socket, bind);
  impl.readable = std::make_unique<ZmqReadable>(io, impl.socket, [&impl] { return impl.drain(); });
}

PlacementPublisher::~PlacementPublisher() = default;

void PlacementPublisher::hold(std::string placement) { impl_->placement = std::move(placement); }

void PlacementPublisher::publish(std::string placement) {
  hold(std::move(placement));
  publish_again();
}

void PlacementPublisher::publish_again() { impl_->send_placement(); }

void PlacementPublisher::heartbeat(std::string_view payload) { impl_->send(payload); }

void PlacementPublisher::end_unauthorized() {
  if (impl_->curve == nullptr) return;
  impl_->peers->end_users_unless(
      [&](std::string_view user) { return impl_->curve->may_connect(user, kPlacementsDomain); });
}

std::vector<std::string> PlacementPublisher::endpoints() const { return impl_->endpoints; }

}  // namespace eplbd
