// What the HTTP address says of a deployment, as JSON: docs/http.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "core/time.h"
#include "daemon/deployment.h"

namespace eplbd {

std::string status_json(const Deployment& deployment, Now now);
std::string placement_json(const std::string& deployment, const Topology& topology,
                           const PlacementUpdate& update);

}  // namespace eplbd
