// SPDX-License-Identifier: Apache-2.0
#include "core/decide/candidate.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace eplbd {

Measured measure(const Topology& topology, const Placement& in_force, std::vector<double> loads,
                 std::span<const int32_t> gpus_down) {
  Measured measured;
  measured.tokens = std::accumulate(loads.begin(), loads.end(), 0.0);
  measured.imbalance = imbalance_of(topology, in_force, loads, gpus_down);
  measured.loads = std::move(loads);
  return measured;
}

MeasuredCandidate measure(const Topology& topology, const Placement& in_force, Placement placement,
                          const Measured& measured, std::span<const int32_t> gpus_down) {
  MeasuredCandidate candidate;
  candidate.imbalance = imbalance_of(topology, placement, measured.loads, gpus_down);
  candidate.moves = count_moves(topology, in_force, placement);
  candidate.placement = std::move(placement);
  return candidate;
}

std::vector<int32_t> layers_by_gain(const Placement& in_force, const Measured& measured,
                                    const MeasuredCandidate& candidate) {
  const auto fall = [&](int32_t layer) {
    return measured.imbalance.peaks[layer] - candidate.imbalance.peaks[layer];
  };
  std::vector<int32_t> layers = changed_layers(in_force, candidate.placement);
  std::stable_sort(layers.begin(), layers.end(),
                   [&](int32_t a, int32_t b) { return fall(a) > fall(b); });
  return layers;
}

}  // namespace eplbd
