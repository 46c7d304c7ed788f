// SPDX-License-Identifier: Apache-2.0
#include "core/model/noise_floor.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

using namespace eplbd;

TEST_CASE("the expected maximum of normal variables", "[noise_floor]") {
  CHECK(expected_maximum(1) == Approx(0).margin(1e-9));
  CHECK(expected_maximum(2) == Approx(1 / std::sqrt(std::acos(-1.0))).epsilon(1e-6));
  CHECK(expected_maximum(3) == Approx(1.5 / std::sqrt(std::acos(-1.0))).epsilon(1e-6));
  CHECK(expected_maximum(32) == Approx(2.0697).epsilon(1e-4));
  CHECK(expected_maximum(256) == Approx(2.8287).epsilon(1e-3));
}

TEST_CASE("the floor is what counting shows on equal GPUs", "[noise_floor]") {
  std::mt19937 random(3);
  for (const int32_t gpus : {8, 32, 144}) {
    const double tokens = 500.0 * gpus;
    double sum = 0;
    constexpr int kRounds = 4000;
    std::poisson_distribution<int> count(tokens / gpus);
    for (int round = 0; round < kRounds; ++round) {
      int most = 0;
      for (int32_t gpu = 0; gpu < gpus; ++gpu) most = std::max(most, count(random));
      sum += most / (tokens / gpus);
    }
    CHECK(NoiseFloor(gpus).imbalance(tokens) == Approx(sum / kRounds).epsilon(0.003));
  }
  CHECK(NoiseFloor(32).imbalance(0) == 1);
  CHECK(NoiseFloor(1).imbalance(100) == Approx(1));
}

TEST_CASE("the soft maximum is the expected one where it must be", "[noise_floor]") {
  const auto soft = [](const std::vector<double>& loads, double sharp) {
    const double peak = *std::max_element(loads.begin(), loads.end());
    double sum = 0;
    for (const double load : loads) sum += std::exp(sharp * (load - peak));
    return peak + std::log(sum) / sharp;
  };
  const double error = 0.02;
  const double sharp = sharpness(32, error);
  CHECK(soft(std::vector<double>(32, 1.0), sharp) ==
        Approx(1 + error * expected_maximum(32)).epsilon(1e-6));
  std::vector<double> one_stands_out(32, 1.0);
  one_stands_out[5] = 1.3;
  CHECK(soft(one_stands_out, sharp) == Approx(1.3).epsilon(1e-3));
  CHECK(std::isfinite(sharpness(32, 0)));
  CHECK(std::isfinite(sharpness(1, 0.1)));
}

TEST_CASE("the error of a GPU's load falls with the experts that it holds", "[noise_floor]") {
  Topology topology;
  topology.layers = 1;
  topology.logical_experts = 256;
  topology.slots = 288;
  topology.gpus = 16;
  CHECK(gpu_error(topology, 0.2) == Approx(0.05));
}
