// Proven lower bounds: no placement can be more even than this, whoever computes it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/balance/balancer.h"
#include "core/model/topology.h"

namespace eplbd {

// A peak (tokens / speed of the fullest GPU) which no placement of these experts on these GPUs is
// below, without an expert twice on a GPU. The best of:
//  - the mean: all tokens / all speed;
//  - water-filling: the spare slots cannot make every replica light enough;
//  - companions: a GPU with a heavy replica has other slots to fill, and for any number of GPUs
//    with the heaviest replicas the lightest experts must go round.
// Requires: weights finite, >= 0; speeds above 0;
// slots_per_gpu <= weights.size() <= slots_per_gpu * speeds.size().
double peak_bound(std::span<const double> weights, std::span<const double> speeds,
                  int32_t slots_per_gpu);

struct ImbalanceBound {
  double whole_model = 0;      // as Imbalance: sum of peaks / sum of means; 0 without load
  std::vector<double> layers;  // [layers]; 0 for a layer without load
};

// Bounds of what a from-scratch placement under these options may reach for `loads`
// [layers, logical_experts], groups kept on nodes where the options ask for it: then the best
// packing of groups to nodes counts. Throws as ScratchPolicy::place(). `thorough`: with two or
// three slots a GPU also by companion_bound(), which takes tens of milliseconds a layer.
ImbalanceBound imbalance_bound(const BalancerOptions& options, const Topology& topology,
                               std::span<const double> loads, std::span<const int32_t> gpus_down,
                               bool thorough = false);

}  // namespace eplbd
