// `eplbctl load`: a simulated fleet of workers for a daemon to balance.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/model/topology.h"
#include "eplbctl/fleet.h"
#include "eplbctl/traffic.h"

namespace eplbd {

struct LoadOptions {
  std::string config;  // the daemon's: deployment, shape and addresses; flags win
  std::string trace;   // empty: drawn traffic
  FleetOptions fleet;
  std::vector<std::string> counts;  // given: instead of the configuration's
  std::vector<std::string> placements;
  std::string deployment;
  std::string http;             // the daemon's, for its own figures; "": the default
  int32_t slots = 0;            // 0: the configuration's, else 288
  int32_t gpus = 0;             // 0: the configuration's, else 32
  double interval_seconds = 1;  // of a step
  double speed = 1;             // times real time
  double seconds = 0;           // 0: until a signal
  uint64_t seed = 0;
  bool force = false;  // publish whoever is there
  bool json = false;
};

// Nothing is published before a daemon was heard that says nobody is there: simulated load that is
// taken for that of workers makes placements which they then get.
int run_load(const LoadOptions& options);

}  // namespace eplbd
