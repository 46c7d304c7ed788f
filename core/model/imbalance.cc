// SPDX-License-Identifier: Apache-2.0
#include "core/model/imbalance.h"

#include <algorithm>

namespace eplbd {

std::vector<double> gpu_loads(const Topology& topology, const Placement& placement,
                              std::span<const double> loads) {
  const auto gpus = static_cast<size_t>(topology.gpus);
  const auto experts = static_cast<size_t>(topology.logical_experts);
  const int32_t slots_per_gpu = topology.slots_per_gpu();
  std::vector<double> result(topology.layers * gpus);
  std::vector<int32_t> replicas(experts);
  std::vector<double> share(experts);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const auto row = placement.layer(layer);
    count_replicas(row, replicas);
    for (size_t expert = 0; expert < experts; ++expert) {
      share[expert] = loads[layer * experts + expert] / std::max(replicas[expert], 1);
    }
    for (size_t gpu = 0; gpu < gpus; ++gpu) {
      double sum = 0;
      for (const int32_t expert : row.subspan(gpu * slots_per_gpu, slots_per_gpu)) {
        if (expert != kNoExpert) sum += share[expert];
      }
      result[layer * gpus + gpu] = sum / topology.gpu_speed(static_cast<int32_t>(gpu));
    }
  }
  return result;
}

Imbalance imbalance_of(const Topology& topology, std::span<const double> gpu_loads,
                       std::span<const int32_t> gpus_down) {
  const auto gpus = static_cast<size_t>(topology.gpus);
  std::vector<bool> live(gpus, true);
  for (const int32_t gpu : gpus_down) live[gpu] = false;
  const auto live_gpus = static_cast<double>(std::count(live.begin(), live.end(), true));

  Imbalance result;
  result.layers.resize(topology.layers);
  result.peaks.resize(topology.layers);
  result.means.resize(topology.layers);
  double peaks = 0;
  double means = 0;
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    double& peak = result.peaks[layer];
    double sum = 0;
    for (size_t gpu = 0; gpu < gpus; ++gpu) {
      if (!live[gpu]) continue;
      const double load = gpu_loads[layer * gpus + gpu];
      peak = std::max(peak, load);
      sum += load;
    }
    const double mean = result.means[layer] = sum / live_gpus;
    if (mean > 0) result.layers[layer] = peak / mean;
    peaks += peak;
    means += mean;
  }
  if (means > 0) result.whole_model = peaks / means;
  return result;
}

Imbalance imbalance_of(const Topology& topology, const Placement& placement,
                       std::span<const double> loads, std::span<const int32_t> gpus_down) {
  return imbalance_of(topology, gpu_loads(topology, placement, loads), gpus_down);
}

std::optional<int32_t> worst_layer(std::span<const double> layers) {
  const auto worst = std::max_element(layers.begin(), layers.end());
  if (worst == layers.end() || *worst <= 0) return std::nullopt;
  return static_cast<int32_t>(worst - layers.begin());
}

}  // namespace eplbd
