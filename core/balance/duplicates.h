// Repairs what DeepSeek's greedy packing may do: put an expert twice on a GPU, which wastes a slot
// (deepseek-ai/EPLB issue 22).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "core/model/placement.h"
#include "core/model/topology.h"

namespace eplbd {

// `placement` without duplicates on a GPU wherever that is possible: the second copy is exchanged
// with a slot of the GPU where that leaves the lower peak (of the same node, when `hierarchical`),
// else its slot is turned over to the heaviest expert that the GPU lacks. `loads` is
// [layers, logical_experts].
Placement repair_duplicates(const Topology& topology, const Placement& placement,
                            std::span<const double> loads, bool hierarchical);

}  // namespace eplbd
