// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/counts_subscriber.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/model/time.h"
#include "daemon/formats/wire.h"
#include "daemon/net/curve_server.h"
#include "daemon/net/zmq_readable.h"
#include "daemon/net/zmq_socket.h"

namespace eplbd {
namespace {

// Messages handled before other work of the loop gets its turn: a few milliseconds at most.
constexpr int kDrainBudget = 64;
// A full queue holds TCP back, and the sender keeps what it has: nothing is lost by a small one. At
// 8 the two threads wait for each other, for up to half of what libzmq alone receives.
constexpr int kReceiveHighWaterMark = 32;       // messages a peer
constexpr int kReceiveBufferBytes = 512 << 10;  // of the kernel's, a peer
// To be woken costs as much as a message. Where messages of many peers come as close together as
// this, the loop lets some gather; not where one of them has sent two meanwhile, which would wait
// for us sooner or later.
constexpr Duration kClose = std::chrono::microseconds(500);
constexpr Duration kRest = std::chrono::milliseconds(1);
constexpr Duration kNoRestForOne = std::chrono::milliseconds(100);

std::span<const std::byte> bytes_of(const zmq::message_t& frame) {
  return {static_cast<const std::byte*>(frame.data()), frame.size()};
}

}  // namespace

struct CountsSubscriber::Impl {
  Impl(zmq::context_t& zmq_context, std::string topic_name, CountsHandler handlers)
      : topic(std::move(topic_name)),
        handler(std::move(handlers)),
        socket(zmq_context, zmq::socket_type::sub) {
    peers_heard.reserve(kDrainBudget);
  }

  // One message, of however many frames; false when there is none.
  bool take_one() {
    if (!receive(socket, frames[0])) return false;
    size_t count = 1;
    size_t bytes = frames[0].size();
    // Further frames of a message are there once its first is.
    while (frames[std::min(count, kWireFrames) - 1].more()) {
      zmq::message_t& frame = frames[std::min(count, kWireFrames - 1)];
      if (!receive(socket, frame)) break;
      bytes += frame.size();
      ++count;
    }
    judge(count, bytes);
    return true;
  }

  void judge(size_t count, size_t bytes) {
    zmq::message_t& last = frames[std::min(count, kWireFrames) - 1];
    const int peer = zmq_msg_get(last.handle(), ZMQ_SRCFD);
    peers_heard.push_back(peer);
    peers->heard(peer, property(last, "User-Id"));
    if (count != kWireFrames) {
      handler.rejected(RejectReason::wrong_frames, property(last, "Peer-Address"));
    } else if (frames[0].to_string_view() != topic) {
      handler.rejected(RejectReason::wrong_topic, property(last, "Peer-Address"));
    } else {
      handler.message({bytes_of(frames[1]), bytes_of(frames[2]), property(last, "User-Id"),
                       property(last, "Peer-Address"), bytes});
    }
  }

  bool drain() {
    peers_heard.clear();
    int taken = 0;
    while (taken < kDrainBudget && take_one()) ++taken;
    if (taken == kDrainBudget) return true;
    if (may_rest(taken)) readable->rest(kRest);
    return false;
  }

  bool may_rest(int taken) {
    const TimePoint now = std::chrono::steady_clock::now();
    const Duration since = now - std::exchange(drained_at, now);
    std::sort(peers_heard.begin(), peers_heard.end());
    if (std::adjacent_find(peers_heard.begin(), peers_heard.end()) != peers_heard.end()) {
      no_rest_until = now + kNoRestForOne;
    }
    return (taken > 1 || (taken == 1 && since < kClose)) && now >= no_rest_until;
  }

  std::string topic;
  CountsHandler handler;
  zmq::socket_t socket;
  zmq::message_t frames[kWireFrames];
  std::vector<std::string> endpoints;
  const CurveServer* curve = nullptr;
  std::unique_ptr<ZmqPeers> peers;
  std::unique_ptr<ZmqReadable> readable;
  std::vector<int> peers_heard;  // descriptors, in this drain
  TimePoint drained_at{};
  TimePoint no_rest_until{};
};

CountsSubscriber::CountsSubscriber(boost::asio::io_context& io, zmq::context_t& zmq_context,
                                   std::string topic, const std::vector<std::string>& bind,
                                   const CurveServer* curve, CountsHandler handler,
                                   CountsLimits limits)
    : impl_(std::make_unique<Impl>(zmq_context, std::move(topic), std::move(handler))) {
  Impl& impl = *impl_;
  set_server_options(impl.socket, curve, kCountsDomain);
  impl.socket.set(zmq::sockopt::rcvhwm, kReceiveHighWaterMark);
  impl.socket.set(zmq::sockopt::rcvbuf, kReceiveBufferBytes);
  impl.socket.set(zmq::sockopt::maxmsgsize, limits.frame_bytes);
  impl.socket.set(zmq::sockopt::subscribe, impl.topic);
  impl.curve = curve;
  impl.peers = std::make_unique<ZmqPeers>(io, zmq_context, impl.socket, limits.peers,
                                          [&impl](ZmqPeers::Event event) {
                                            if (event == ZmqPeers::Event::disconnected) {
                                              impl.handler.connection_ended();
                                            } else if (impl.curve != nullptr) {
                                              impl.handler.rejected(RejectReason::unauthorized, "");
                                            }
                                          });
  impl.endpoints = bind_all(impl.socket, bind);
  impl.readable = std::make_unique<ZmqReadable>(io, impl.socket, [&impl] { return impl.drain(); });
}

CountsSubscriber::~CountsSubscriber() = default;

void CountsSubscriber::hold(bool on) {
  if (on) {
    impl_->readable->pause();
  } else {
    impl_->readable->resume();
  }
}

void CountsSubscriber::end_unauthorized() {
  if (impl_->curve == nullptr) return;
  impl_->peers->end_users_unless(
      [&](std::string_view user) { return impl_->curve->may_connect(user, kCountsDomain); });
}

std::vector<std::string> CountsSubscriber::endpoints() const { return impl_->endpoints; }

}  // namespace eplbd
