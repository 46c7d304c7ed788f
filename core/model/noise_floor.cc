// SPDX-License-Identifier: Apache-2.0
#include "core/model/noise_floor.h"

#include <algorithm>
#include <cmath>

namespace eplbd {
namespace {

constexpr double kMostSharp = 1e4;

}  // namespace

double expected_maximum(int32_t count) {
  // The integral of 1 - F^n above zero, less that of F^n below: F is the normal distribution.
  constexpr double kFar = 9;
  constexpr int kSteps = 720;
  constexpr double kStep = 2 * kFar / kSteps;
  double sum = 0;
  for (int i = 0; i < kSteps; ++i) {
    const double x = -kFar + (i + 0.5) * kStep;
    const double all_below = std::pow(0.5 * std::erfc(-x / std::sqrt(2.0)), count);
    sum += (x > 0 ? 1 : 0) - all_below;
  }
  return sum * kStep;
}

double gpu_error(const Topology& topology, double expert_error) {
  const double experts_per_gpu = static_cast<double>(topology.logical_experts) / topology.gpus;
  return expert_error / std::sqrt(experts_per_gpu);
}

double sharpness(int32_t gpus, double error) {
  if (gpus < 2 || error <= 0) return kMostSharp;
  return std::min(std::log(gpus) / (expected_maximum(gpus) * error), kMostSharp);
}

NoiseFloor::NoiseFloor(int32_t gpus) : gpus_(gpus), largest_(expected_maximum(gpus)) {}

double NoiseFloor::imbalance(double tokens) const {
  return tokens <= 0 ? 1 : 1 + largest_ * std::sqrt(gpus_ / tokens);
}

}  // namespace eplbd
