// What imbalance chance alone shows. With n tokens a GPU, a perfect placement still has a fullest
// GPU: by about sqrt(2 ln GPUs / n) of the mean. Nothing is won by chasing that.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/model/topology.h"

namespace eplbd {

// Expected maximum of `count` independent standard normal variables. Requires: count >= 1.
double expected_maximum(int32_t count);

// Standard deviation of a GPU's load, in mean GPU loads, when that of an expert's is
// `expert_error` mean expert loads.
double gpu_error(const Topology& topology, double expert_error);

// Sharpness of the soft maximum log(sum of e^(sharpness x load)) / sharpness that equals the
// expected maximum of `gpus` loads with deviation `error` where all are equal, and tends to the
// largest where one stands out. Bounded, for an error of 0.
double sharpness(int32_t gpus, double error);

// What is to be seen of so many GPUs under a perfect placement.
class NoiseFloor {
 public:
  // Requires: gpus >= 1.
  explicit NoiseFloor(int32_t gpus);
  // Expected imbalance with `tokens` tokens of a layer: the deviation of a GPU's load is that of
  // counting. 1 without tokens.
  double imbalance(double tokens) const;

 private:
  int32_t gpus_;
  double largest_;  // of as many standard normal variables
};

}  // namespace eplbd
