// Receives what workers send: SUB, bound. Judges frames; what is in them is the wire's business.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>
#include <zmq.hpp>

#include "core/workers/worker_report.h"
#include "daemon/net/zmq_peers.h"

namespace boost::asio {
class io_context;
}

namespace eplbd {

class CurveServer;

struct CountsLimits {
  int64_t frame_bytes = 4 << 20;  // a larger one ends its connection
  ZmqPeerLimits peers;
};

struct CountsMessage {
  std::span<const std::byte> sequence;
  std::span<const std::byte> payload;
  std::string_view user_id;  // of the CURVE key it came under; empty without CURVE
  std::string_view peer;     // its address
  size_t bytes = 0;          // of all frames
};

struct CountsHandler {
  std::function<void(const CountsMessage&)> message;
  std::function<void(RejectReason, std::string_view peer)> rejected;  // before the payload was read
  std::function<void()> connection_ended;  // by its peer, by a limit, or by broken framing
};

class CountsSubscriber {
 public:
  // Subscribes to messages whose topic is exactly `topic`. Throws std::runtime_error naming the
  // address that cannot be bound. `zmq_context` and `curve` (null: plaintext) outlive it.
  CountsSubscriber(boost::asio::io_context& io, zmq::context_t& zmq_context, std::string topic,
                   const std::vector<std::string>& bind, const CurveServer* curve,
                   CountsHandler handler, CountsLimits limits = {});
  ~CountsSubscriber();
  CountsSubscriber(const CountsSubscriber&) = delete;
  CountsSubscriber& operator=(const CountsSubscriber&) = delete;

  // From hold(true) to hold(false) nothing is received: it waits in the sockets.
  void hold(bool on);

  // Ends the connections of keys that may no longer be used: after CurveServer::reload().
  void end_unauthorized();

  std::vector<std::string> endpoints() const;  // as bound: with the ports that were free

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
