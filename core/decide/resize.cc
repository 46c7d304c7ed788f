// SPDX-License-Identifier: Apache-2.0
#include "core/decide/resize.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace eplbd {

std::string to_text(Shape shape) {
  return std::to_string(shape.gpus) + " GPUs with " + std::to_string(shape.slots) + " slots";
}

Placement carry_over(const Topology& before, const Placement& placement, const Topology& after) {
  const int32_t kept = std::min(before.slots_per_gpu(), after.slots_per_gpu());
  std::vector<int32_t> map(static_cast<size_t>(after.layers) * after.slots, kNoExpert);
  for (int32_t layer = 0; layer < after.layers; ++layer) {
    int32_t* const row = map.data() + static_cast<size_t>(layer) * after.slots;
    for (int32_t gpu = 0; gpu < std::min(before.gpus, after.gpus); ++gpu) {
      std::copy_n(placement.layer(layer).data() + gpu * before.slots_per_gpu(), kept,
                  row + gpu * after.slots_per_gpu());
    }
  }
  return Placement(after, std::move(map));
}

std::optional<std::string> refuses_shape(const Situation& situation, Shape shape, TimePoint now) {
  const GroupState& group = situation.group;
  if (shape == situation.topology.shape() && !group.topology_mismatch()) {
    return "it is planned for " + to_text(shape) + " already";
  }
  const std::vector<std::string> problems = resized(situation.configured, shape).problems();
  if (!problems.empty()) return problems.front();
  const bool heard =
      group.reported_at() && now - *group.reported_at() <= situation.options.workers.timeout;
  const CarriedMap* const carried = group.carried();
  if (carried != nullptr && carried->shape == shape) return std::nullopt;
  if (!heard) return std::nullopt;
  if (group.topology_mismatch()) return group.mismatch();
  return "workers report " + to_text(situation.topology.shape()) + ", not " + to_text(shape) +
         ": scale the group first";
}

CarriedMap carried_to(const Situation& situation, Shape shape) {
  const GroupState& group = situation.group;
  if (const CarriedMap* carried = group.carried(); carried != nullptr && carried->shape == shape) {
    return *carried;
  }
  const Topology next = resized(situation.configured, shape);
  Placement placement = carry_over(situation.topology, group.in_force(), next);
  std::vector<int32_t> empty = empty_gpus(next, placement);
  return {shape, group.running(), std::move(placement), std::move(empty)};
}

RebalancerState state_in_shape(const Situation& situation, const CarriedMap& carried) {
  RebalancerState next = situation.state;
  const bool as_configured = carried.shape == situation.configured.shape();
  next.resized = as_configured ? std::nullopt : std::optional(carried.shape);
  next.placements.carry_over(topology_of(situation.configured, next), carried.running,
                             carried.placement, next.placements.published.unix_seconds,
                             carried.empty_gpus);
  next.gpus_down.clear();
  next.gpus_lost.clear();
  next.gpus_empty.clear();
  return next;
}

std::unique_ptr<const Situation> in_shape(const Situation& situation, const CarriedMap& carried,
                                          Now now) {
  auto next = std::make_unique<Situation>(situation.configured, situation.options, now,
                                          state_in_shape(situation, carried));
  next->window = situation.window;
  next->apply_seconds = situation.apply_seconds;
  return next;
}

}  // namespace eplbd
