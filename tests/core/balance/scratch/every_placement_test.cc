// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/every_placement.h"

#include <catch2/catch.hpp>
#include <vector>

#include "tests/core/balance/scratch/regions.h"

using namespace eplbd;

TEST_CASE("of all placements the best is found", "[every_placement]") {
  Random random(7);
  for (int i = 0; i < 30; ++i) {
    const int32_t gpus = 2 + random.below(3);
    const int32_t slots_per_gpu = 2 + random.below(2);
    const auto weights = random_weights(6, 1.5, random);
    if (gpus * slots_per_gpu < 6) continue;
    REQUIRE(placements_are_few(6, gpus, slots_per_gpu));
    const double least = Exhaustive(weights, gpus, slots_per_gpu).least();
    RegionState state;
    state.reset(weights, std::vector<double>(gpus, 1.0), slots_per_gpu);
    const auto best = best_placement_below(least * 2, weights, gpus, slots_per_gpu);
    REQUIRE(static_cast<int32_t>(best.size()) == state.slots());
    state.load(best);
    CHECK(is_consistent(state));
    CHECK(state.peak() == Approx(least).epsilon(1e-9));
    CHECK(best_placement_below(least, weights, gpus, slots_per_gpu).empty());
  }
}

TEST_CASE("few means few", "[every_placement]") {
  CHECK(placements_are_few(8, 4, 4));
  CHECK_FALSE(placements_are_few(32, 8, 5));
  CHECK_FALSE(placements_are_few(3, 2, 4));  // more slots than experts
}
