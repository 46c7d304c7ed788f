// Sends placements and heartbeats to whoever subscribes: XPUB, bound. A placement is state, not an
// event: whoever joins gets the one in force.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>
#include <zmq.hpp>

#include "daemon/net/placement_sink.h"
#include "daemon/net/zmq_peers.h"

namespace boost::asio {
class io_context;
}

namespace eplbd {

class CurveServer;

struct PublisherHandler {
  std::function<void()>
      joined;  // somebody subscribed and the placement in force was sent once more
  std::function<void()> denied;  // a connection that did not get through the CURVE handshake
  // Asked before somebody who joined is served.
  std::function<bool()> may_publish = [] { return true; };
};

class PlacementPublisher : public PlacementSink {
 public:
  // Throws std::runtime_error naming the address that cannot be bound. `zmq_context` and `curve`
  // (null: plaintext) outlive it.
  PlacementPublisher(boost::asio::io_context& io, zmq::context_t& zmq_context, std::string topic,
                     const std::vector<std::string>& bind, const CurveServer* curve,
                     PublisherHandler handler, ZmqPeerLimits limits = {});
  ~PlacementPublisher() override;
  PlacementPublisher(const PlacementPublisher&) = delete;
  PlacementPublisher& operator=(const PlacementPublisher&) = delete;

  void hold(std::string placement) override;
  void publish(std::string placement) override;
  void publish_again() override;
  void heartbeat(std::string_view payload) override;

  // Ends the connections of keys that may no longer be used: after CurveServer::reload().
  void end_unauthorized();

  std::vector<std::string> endpoints() const;  // as bound

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
