// Reads placements in the formats of daemon/formats/placement_format.h.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "core/model/placement.h"
#include "core/model/topology.h"
#include "daemon/formats/placement_format.h"

namespace eplbd {

// By a file's name: .npy npy, .yaml and .yml trtllm, else json.
PlacementFormat placement_format_of(const std::string& file);

// The content tells which format it is; what `eplbctl solve` and /api/v1/placement print are read
// too. Checked: shape, ids, every expert placed. Throws std::runtime_error: FILE: what is wrong and
// where.
Placement read_placement(const std::string& file, const Topology& topology);

}  // namespace eplbd
