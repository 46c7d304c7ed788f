// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/pair_counts.h"

#include <catch2/catch.hpp>
#include <functional>
#include <numeric>
#include <vector>

#include "tests/core/balance/scratch/regions.h"

using namespace eplbd;

namespace {

double fullest_pair(const std::vector<double>& weights, const std::vector<int32_t>& counts) {
  std::vector<double> shares;
  for (size_t e = 0; e < counts.size(); ++e) {
    shares.insert(shares.end(), static_cast<size_t>(counts[e]), weights[e] / counts[e]);
  }
  std::sort(shares.begin(), shares.end());
  double most = 0;
  for (size_t i = 0; i < shares.size() / 2; ++i) {
    most = std::max(most, shares[i] + shares[shares.size() - 1 - i]);
  }
  return most;
}

// Over all counts that add up.
double least_pair(const std::vector<double>& weights, int32_t gpus) {
  std::vector<int32_t> counts(weights.size(), 1);
  double least = 1e300;
  const auto choose = [&](auto& self, size_t expert, int32_t spare) -> void {
    if (expert + 1 == weights.size()) {
      if (spare >= gpus) return;
      counts[expert] = 1 + spare;
      least = std::min(least, fullest_pair(weights, counts));
      return;
    }
    for (counts[expert] = 1; counts[expert] <= std::min(gpus, spare + 1); ++counts[expert]) {
      self(self, expert + 1, spare - counts[expert] + 1);
    }
  };
  choose(choose, 0, 2 * gpus - static_cast<int32_t>(weights.size()));
  return least;
}

}  // namespace

TEST_CASE("moves of replicas end at the best counts", "[pair_counts]") {
  Random random(31);
  constexpr int kInstances = 100;
  int best = 0;
  for (int i = 0; i < kInstances; ++i) {
    constexpr int32_t kGpus = 6;
    const auto weights = random_weights(8, 1, random);
    std::vector<int32_t> counts = {2, 2, 2, 2, 1, 1, 1, 1};
    PairCounts().improve(weights, kGpus, 0, 3000, random, counts);
    CHECK(std::accumulate(counts.begin(), counts.end(), 0) == 2 * kGpus);
    CHECK(*std::min_element(counts.begin(), counts.end()) >= 1);
    const double found = fullest_pair(weights, counts);
    const double least = least_pair(weights, kGpus);
    CHECK(found <= least * 1.01);
    best += found <= least * (1 + 1e-6);
  }
  CHECK(best >= 95);
}

TEST_CASE("experts without load, or with next to none, take and give replicas", "[pair_counts]") {
  Random random(7);
  for (int i = 0; i < 200; ++i) {
    constexpr int32_t kGpus = 8;
    auto weights = random_weights(10, 1, random);
    for (size_t idle = 0; idle < 4; ++idle) weights[idle] = idle * 1e-12;
    std::vector<int32_t> counts = {2, 2, 2, 2, 2, 2, 1, 1, 1, 1};
    PairCounts().improve(weights, kGpus, 0, 500, random, counts);
    CHECK(std::accumulate(counts.begin(), counts.end(), 0) == 2 * kGpus);
    CHECK(*std::min_element(counts.begin(), counts.end()) >= 1);
    CHECK(*std::max_element(counts.begin(), counts.end()) <= kGpus);
  }
}

TEST_CASE("counts stay as they are where there is nothing to move or to win", "[pair_counts]") {
  Random random(1);
  std::vector<int32_t> single(8, 1);
  PairCounts().improve(std::vector<double>{8, 7, 6, 5, 4, 3, 2, 1}, 4, 0, 100, random, single);
  CHECK(single == std::vector<int32_t>(8, 1));
  std::vector<int32_t> counts = {2, 1, 1};
  PairCounts().improve(std::vector<double>{2, 1, 1}, 2, 2, 100, random, counts);
  CHECK(counts == std::vector<int32_t>{2, 1, 1});
  PairCounts().improve(std::vector<double>{0, 0, 0}, 2, 0, 100, random, counts);
  CHECK(counts == std::vector<int32_t>{2, 1, 1});
}
