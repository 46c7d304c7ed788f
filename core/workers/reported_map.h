// A map that a worker says its group runs: taken as it is, judged by the rules of a valid
// placement.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/model/placement.h"
#include "core/model/topology.h"
#include "core/workers/worker_report.h"

namespace eplbd {

struct ReportedMap {
  Placement placement;              // a slot that holds no expert of ours is empty here
  std::vector<int32_t> empty_gpus;  // no expert in any slot of any layer; sorted
  // The first rule that the map breaks, as a sentence; nothing when the group can serve by it.
  std::optional<std::string> broken;
};

// `slot_to_expert` [layers, slots]. GPUs that are wholly empty break no rule, unless the others
// cannot hold every expert; nor does an expert that is twice on a GPU: engines start like that.
ReportedMap read_reported_map(const Topology& topology, const PackedArray<int32_t>& slot_to_expert);

// What a group holds in another shape than the one it is known in.
struct CarriedMap {
  Shape shape;
  PlacementId running;  // the name that it says; nothing new was given out in this shape
  Placement placement;  // [layers, shape.slots]; what is not filled yet is empty
  std::vector<int32_t> empty_gpus;  // sorted
  bool operator==(const CarriedMap&) const = default;
};

// Whether the GPU holds no expert in any layer.
bool is_empty(const Topology& topology, const Placement& placement, int32_t gpu);
std::vector<int32_t> empty_gpus(const Topology& topology, const Placement& placement);  // sorted

// Whether each row of `placement` is that layer's of `base` or of `next`.
bool lies_between(const Placement& placement, const Placement& base, const Placement& next);

}  // namespace eplbd
