// SPDX-License-Identifier: Apache-2.0
#include "core/balance/imbalance_floor.h"

#include <algorithm>
#include <numeric>

#include "core/balance/bound.h"
#include "core/model/noise_floor.h"

namespace eplbd {

double imbalance_floor(const BalancerOptions& options, const Topology& topology,
                       std::span<const double> loads, std::span<const int32_t> gpus_down) {
  const ImbalanceBound bound = imbalance_bound(options, topology, loads, gpus_down);
  const NoiseFloor noise(topology.gpus - static_cast<int32_t>(gpus_down.size()));
  const auto experts = static_cast<size_t>(topology.logical_experts);
  double peaks = 0;
  double tokens = 0;
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const auto row = loads.subspan(layer * experts, experts);
    const double sum = std::accumulate(row.begin(), row.end(), 0.0);
    if (sum < topology.gpus) continue;  // the window has faded: chance could explain anything
    peaks += sum * std::max(noise.imbalance(sum), bound.layers[layer]);
    tokens += sum;
  }
  return tokens > 0 ? peaks / tokens : 0;
}

}  // namespace eplbd
