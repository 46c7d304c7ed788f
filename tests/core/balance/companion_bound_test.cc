// SPDX-License-Identifier: Apache-2.0
#include "core/balance/companion_bound.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "core/balance/bound.h"
#include "core/balance/scratch/every_placement.h"
#include "core/balance/scratch_policy.h"
#include "core/model/imbalance.h"

namespace eplbd {
namespace {

std::vector<double> drawn(int32_t experts, double spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::lognormal_distribution<double> load(5, spread);
  std::vector<double> weights(experts);
  for (double& weight : weights) weight = std::floor(load(random)) + 1;
  return weights;
}

double least_peak(const std::vector<double>& weights, int32_t gpus, int32_t slots_per_gpu) {
  constexpr double kAny = 1e18;
  const auto best = best_placement_below(kAny, weights, gpus, slots_per_gpu);
  std::vector<int32_t> count(weights.size());
  for (const int32_t expert : best) ++count[expert];
  double peak = 0;
  for (size_t first = 0; first < best.size(); first += slots_per_gpu) {
    double load = 0;
    for (int32_t i = 0; i < slots_per_gpu; ++i)
      load += weights[best[first + i]] / count[best[first + i]];
    peak = std::max(peak, load);
  }
  return peak;
}

}  // namespace

TEST_CASE("no placement is below it", "[bound]") {
  int sharper = 0;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    const int32_t slots_per_gpu = 2 + static_cast<int32_t>(seed % 2);
    const int32_t gpus = slots_per_gpu == 2 ? 4 : 3;
    const int32_t experts = gpus * slots_per_gpu - 1 - static_cast<int32_t>(seed % 4);
    const auto weights = drawn(experts, 0.5 + 0.25 * (seed % 5), seed);
    if (!placements_are_few(experts, gpus, slots_per_gpu)) continue;
    const double known = peak_bound(weights, std::vector<double>(gpus, 1.0), slots_per_gpu);
    const double bound = companion_bound(weights, gpus, slots_per_gpu, known);
    INFO("seed " << seed);
    CHECK(bound >= known);
    CHECK(bound <= least_peak(weights, gpus, slots_per_gpu) * (1 + 1e-9));
    sharper += bound > known * 1.001 ? 1 : 0;
  }
  CHECK(sharper > 20);
}

TEST_CASE("at two slots a GPU it is near what can be reached", "[bound]") {
  Topology topology{1, 256, 288, 144, 1, 1, {}, {}};
  for (const uint32_t seed : {1u, 2u, 3u}) {
    const auto loads = drawn(256, 0.9, seed);
    const double known = imbalance_bound({Policy::joint}, topology, loads, {}).whole_model;
    const double bound = imbalance_bound({Policy::joint}, topology, loads, {}, true).whole_model;
    const auto placed = make_scratch_policy({Policy::joint})->place(topology, loads, {});
    const double reached = imbalance_of(topology, placed.placement, loads).whole_model;
    CHECK(bound >= known);
    CHECK(bound <= reached);
    CHECK(reached / bound < 1.02);
  }
}

}  // namespace eplbd
