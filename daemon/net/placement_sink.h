// Where placements and heartbeats go, as who serves a deployment sees it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace eplbd {

class PlacementSink {
 public:
  virtual ~PlacementSink() = default;

  // An encoded placement: what new subscribers get from here on; empty: nothing. Sends nothing now.
  virtual void hold(std::string placement) = 0;
  virtual void publish(std::string placement) = 0;  // holds it and sends it
  virtual void publish_again() = 0;                 // sends what is held
  virtual void heartbeat(std::string_view payload) = 0;
};

}  // namespace eplbd
