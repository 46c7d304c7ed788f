// Sends placements and heartbeats to whoever subscribes: XPUB, bound. A placement is state, not an
// event: whoever joins gets the one in force.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace boost::asio {
class io_context;
}

namespace eplbd {

class CurveServer;

struct PublisherHandler {
  std::function<void()>
      joined;  // somebody subscribed and the placement in force was sent once more
  std::function<void()> denied;  // a connection that did not get through the CURVE handshake
};

class PlacementPublisher {
 public:
  // Throws std::runtime_error naming the address that cannot be bound. `zmq_context` and `curve`
  // (null: plaintext) outlive it.
  PlacementPublisher(boost::asio::io_context& io, void* zmq_context, std::string topic,
                     const std::vector<std::string>& bind, const CurveServer* curve,
                     PublisherHandler handler);
  ~PlacementPublisher();
  PlacementPublisher(const PlacementPublisher&) = delete;
  PlacementPublisher& operator=(const PlacementPublisher&) = delete;

  // An encoded placement: what new subscribers get from here on. `hold` sends nothing now: the one
  // in force at the start.
  void hold(std::string placement);
  void publish(std::string placement);
  void publish_again();
  void heartbeat(std::string_view payload);

  std::vector<std::string> endpoints() const;  // as bound

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
