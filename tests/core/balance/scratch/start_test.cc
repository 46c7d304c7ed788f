// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/start.h"

#include <catch2/catch.hpp>
#include <numeric>
#include <vector>

#include "tests/core/balance/scratch/regions.h"

using namespace eplbd;

TEST_CASE("spare slots go where replicas carry most", "[start]") {
  RegionState state;
  state.reset(std::vector<double>{2, 12, 5, 1}, std::vector<double>(4, 1.0), 2);
  std::vector<int32_t> counts;
  Start().count_by_water(state, counts);
  CHECK(counts == std::vector<int32_t>{1, 4, 2, 1});  // 12 / 4 and no more: one a GPU
}

TEST_CASE("no other counts have a lighter heaviest replica", "[start]") {
  Random random(3);
  for (int i = 0; i < 50; ++i) {
    RegionState state;
    state.reset(random_weights(6, 1.5, random), std::vector<double>(5, 1.0), 2);
    std::vector<int32_t> counts;
    Start().count_by_water(state, counts);
    CHECK(std::accumulate(counts.begin(), counts.end(), 0) == 10);
    double heaviest = 0;
    for (int e = 0; e < 6; ++e) heaviest = std::max(heaviest, state.weight[e] / counts[e]);
    // To be lighter, each expert needs more than weight / heaviest replicas: more than there are.
    int32_t needed = 0;
    for (int e = 0; e < 6; ++e) {
      needed += static_cast<int32_t>(std::floor(state.weight[e] / heaviest * (1 + 1e-12))) + 1;
    }
    CHECK((needed > 10 || *std::max_element(counts.begin(), counts.end()) == 5));
  }
}

TEST_CASE("a replica passes from the hottest to a light expert", "[start]") {
  RegionState state;
  state.reset(std::vector<double>{40, 9, 8, 3, 2}, std::vector<double>(4, 1.0), 2);
  std::vector<int32_t> counts = {4, 1, 1, 1, 1};
  CHECK(Start().pass_replica_on(state, counts));
  CHECK(counts == std::vector<int32_t>{3, 1, 1, 2, 1});
  CHECK_FALSE(Start().pass_replica_on(state, counts));  // 20 alone is above the mean
}

TEST_CASE("a start fills every slot, no expert twice on a GPU", "[start]") {
  Random random(11);
  for (int i = 0; i < 200; ++i) {
    const int32_t gpus = 2 + random.below(9);
    const int32_t slots_per_gpu = 1 + random.below(5);
    const int32_t fewest = slots_per_gpu;
    const int32_t experts = fewest + random.below(gpus * slots_per_gpu - fewest + 1);
    RegionState state;
    state.reset(random_weights(experts, 2, random),
                i % 2 == 0 ? std::vector<double>(gpus, 1.0) : mixed_speeds(gpus), slots_per_gpu);
    Start start;
    std::vector<int32_t> counts;
    start.count_by_water(state, counts);
    start.place(counts, state);
    INFO("instance " << i);
    REQUIRE(is_consistent(state));
    CHECK(state.count == counts);
  }
}

TEST_CASE("where only a GPU with the expert has room, another one passes it one of its own",
          "[start]") {
  RegionState state;
  state.reset(std::vector<double>{100, 10, 10, 10, 10, 10, 10, 2}, std::vector<double>(3, 1.0), 3);
  const std::vector<int32_t> counts = {1, 1, 1, 1, 1, 1, 1, 2};  // the last fill 100's GPU
  Start().place(counts, state);
  REQUIRE(is_consistent(state));
  CHECK(state.count == counts);
}
