// What the HTTP address says of a deployment, as JSON: docs/http.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/model/time.h"
#include "daemon/deployment.h"

namespace eplbd {

// Where the daemon listens: as bound, with the ports that were free.
struct Endpoints {
  std::vector<std::string> counts;  // ZeroMQ addresses
  std::vector<std::string> placements;
  std::string http;     // a URL
  std::string control;  // a path
};

// `since`, in Unix seconds: curves, events and updates that are newer alone.
std::string status_json(const Deployment& deployment, const Endpoints& endpoints,
                        std::optional<double> since, Now now);
// Every placement that is kept, over restarts too, newest first.
std::string versions_json(const Deployment& deployment);
std::string placement_json(const std::string& deployment, const Topology& topology,
                           const PlacementUpdate& update);

}  // namespace eplbd
