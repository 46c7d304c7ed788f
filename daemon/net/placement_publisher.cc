// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/placement_publisher.h"

#include <zmq.hpp>

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

// However many join, the placement goes out at most 50 times a second: all get it each time.
constexpr auto kRejoinInterval = std::chrono::milliseconds(20);
// A subscriber that is this far behind loses messages; the next heartbeat tells it to join anew.
constexpr int kSendHighWaterMark = 16;

// Subscriptions are a byte 1 and a topic: longer messages than that are none.
constexpr int64_t kMaxSubscriptionBytes = 1024;

}  // namespace

struct PlacementPublisher::Impl {
  Impl(boost::asio::io_context& io, void* zmq_context, std::string topic_name,
       PublisherHandler handlers)
      : topic(std::move(topic_name)), handler(std::move(handlers)), timer(io) {
    socket = zmq_socket(zmq_context, ZMQ_XPUB);
    if (socket == nullptr) throw std::runtime_error(zmq_strerror(zmq_errno()));
  }
  ~Impl() {
    readable.reset();
    monitor.reset();
    zmq_close(socket);
  }

  void send(std::string_view payload) {
    const std::string number = encode_sequence(sequence++);
    // XPUB never blocks: what a slow subscriber has no room for is dropped for that one.
    zmq_send(socket, topic.data(), topic.size(), ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(socket, number.data(), number.size(), ZMQ_SNDMORE | ZMQ_DONTWAIT);
    zmq_send(socket, payload.data(), payload.size(), ZMQ_DONTWAIT);
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
      if (zmq_msg_recv(frame.handle(), socket, ZMQ_DONTWAIT) < 0) return false;
      const std::string_view text = frame.to_string_view();
      const bool joins = !text.empty() && text[0] == 1;
      if (joins && topic.compare(0, text.size() - 1, text.substr(1)) == 0) serve_joined();
    }
    return true;
  }

  void serve_joined() {
    if (pending) return;
    pending = true;
    timer.expires_at(last_sent + kRejoinInterval);  // often in the past: at once, after this drain
    timer.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      pending = false;
      send_placement();
      handler.joined();
    });
  }

  std::string topic;
  PublisherHandler handler;
  boost::asio::steady_timer timer;
  void* socket = nullptr;
  uint64_t sequence = 0;
  std::string placement;
  Clock::time_point last_sent{};
  bool pending = false;
  std::vector<std::string> endpoints;
  std::unique_ptr<ZmqMonitor> monitor;
  std::unique_ptr<ZmqReadable> readable;
};

PlacementPublisher::PlacementPublisher(boost::asio::io_context& io, void* zmq_context,
                                       std::string topic, const std::vector<std::string>& bind,
                                       const CurveServer* curve, PublisherHandler handler)
    : impl_(std::make_unique<Impl>(io, zmq_context, std::move(topic), std::move(handler))) {
  Impl& impl = *impl_;
  set_server_options(impl.socket, curve, kPlacementsDomain);
  const int on = 1;  // tell of every subscription, not only the first to a topic
  zmq_setsockopt(impl.socket, ZMQ_XPUB_VERBOSE, &on, sizeof(on));
  zmq_setsockopt(impl.socket, ZMQ_SNDHWM, &kSendHighWaterMark, sizeof(kSendHighWaterMark));
  zmq_setsockopt(impl.socket, ZMQ_MAXMSGSIZE, &kMaxSubscriptionBytes,
                 sizeof(kMaxSubscriptionBytes));
  if (curve != nullptr) {
    impl.monitor = std::make_unique<ZmqMonitor>(io, zmq_context, impl.socket,
                                                [&impl](ZmqMonitor::Event event) {
                                                  if (event == ZmqMonitor::Event::handshake_failed)
                                                    impl.handler.denied();
                                                });
  }
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

std::vector<std::string> PlacementPublisher::endpoints() const { return impl_->endpoints; }

}  // namespace eplbd
