// SPDX-License-Identifier: Apache-2.0
#include "core/workers/reported_map.h"

#include <algorithm>
#include <utility>

namespace eplbd {

bool is_empty(const Topology& topology, const Placement& placement, int32_t gpu) {
  const size_t slots_per_gpu = topology.slots_per_gpu();
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const auto slots = placement.layer(layer).subspan(gpu * slots_per_gpu, slots_per_gpu);
    if (std::ranges::any_of(slots, [](int32_t expert) { return expert != kNoExpert; })) {
      return false;
    }
  }
  return true;
}

std::vector<int32_t> empty_gpus(const Topology& topology, const Placement& placement) {
  std::vector<int32_t> empty;
  for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) {
    if (is_empty(topology, placement, gpu)) empty.push_back(gpu);
  }
  return empty;
}

ReportedMap read_reported_map(const Topology& topology,
                              const PackedArray<int32_t>& slot_to_expert) {
  ReportedMap result;
  std::vector<int32_t> map(slot_to_expert.size());
  slot_to_expert.copy_to(map);
  for (size_t cell = 0; cell < map.size(); ++cell) {
    if (map[cell] >= kNoExpert && map[cell] < topology.logical_experts) continue;
    if (!result.broken) {
      result.broken = "layer " + std::to_string(cell / topology.slots) + ": slot " +
                      std::to_string(cell % topology.slots) + " holds expert " +
                      std::to_string(map[cell]) + ", of " +
                      std::to_string(topology.logical_experts);
    }
    map[cell] = kNoExpert;
  }
  result.placement = Placement(topology, std::move(map));
  result.empty_gpus = empty_gpus(topology, result.placement);
  const auto live = topology.gpus - static_cast<int64_t>(result.empty_gpus.size());
  if (live * topology.slots_per_gpu() < topology.logical_experts) result.empty_gpus.clear();
  if (!result.broken) {
    PlacementRules rules;
    rules.gpus_down = result.empty_gpus;
    rules.allow_duplicates = true;
    result.broken = find_violation(topology, result.placement, rules);
  }
  return result;
}

bool lies_between(const Placement& placement, const Placement& base, const Placement& next) {
  for (int32_t layer = 0; layer < placement.layers(); ++layer) {
    const auto row = placement.layer(layer);
    if (!std::ranges::equal(row, base.layer(layer)) &&
        !std::ranges::equal(row, next.layer(layer))) {
      return false;
    }
  }
  return true;
}

}  // namespace eplbd
