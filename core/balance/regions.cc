// SPDX-License-Identifier: Apache-2.0
#include "core/balance/regions.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace eplbd {
namespace {

std::vector<std::vector<int32_t>> live_gpus(const Topology& topology, std::span<const int32_t> down,
                                            int32_t regions) {
  const int32_t gpus_per_region = topology.gpus / regions;
  std::vector<std::vector<int32_t>> live(static_cast<size_t>(regions));
  for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) {
    if (std::find(down.begin(), down.end(), gpu) != down.end()) continue;
    live[static_cast<size_t>(gpu / gpus_per_region)].push_back(gpu);
  }
  return live;
}

bool holds_its_experts(const Regions& regions, int32_t slots_per_gpu) {
  return std::all_of(regions.gpus.begin(), regions.gpus.end(), [&](const auto& gpus) {
    return static_cast<int32_t>(gpus.size()) * slots_per_gpu >= regions.experts_per_region();
  });
}

}  // namespace

Regions regions_of(const BalancerOptions& options, const Topology& topology,
                   std::span<const int32_t> gpus_down) {
  Regions regions;
  if (places_hierarchically(options, topology)) {
    regions.hierarchical = true;
    regions.groups_per_region = topology.groups / topology.nodes;
    regions.experts_per_group = topology.experts_per_group();
    regions.gpus = live_gpus(topology, gpus_down, topology.nodes);
    if (holds_its_experts(regions, topology.slots_per_gpu())) return regions;
  }
  regions = Regions{};
  regions.experts_per_group = topology.logical_experts;
  regions.gpus = live_gpus(topology, gpus_down, 1);
  if (!holds_its_experts(regions, topology.slots_per_gpu())) {
    const auto live = static_cast<int32_t>(regions.gpus.front().size());
    throw std::invalid_argument("the " + std::to_string(live) + " live GPUs have " +
                                std::to_string(live * topology.slots_per_gpu()) +
                                " slots, fewer than the " +
                                std::to_string(topology.logical_experts) + " logical experts");
  }
  return regions;
}

}  // namespace eplbd
