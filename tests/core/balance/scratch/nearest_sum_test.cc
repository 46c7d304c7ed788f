// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/nearest_sum.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <vector>

#include "core/balance/random.h"

using namespace eplbd;

TEST_CASE("distances are those to the nearest of theirs", "[nearest_sum]") {
  Random random(2);
  for (const size_t count : {1, 3, 16, 36, 84}) {
    std::vector<int32_t> ours((count + kSumLanes - 1) / kSumLanes * kSumLanes, kNoSum);
    std::vector<int32_t> theirs(count);
    for (size_t i = 0; i < count; ++i) {
      ours[i] = random.below(1 << 28);
      theirs[i] = random.below(1 << 28);
    }
    const int32_t wanted = random.below(1 << 20) - (1 << 19);
    std::vector<int32_t> distances(ours.size());
    const int32_t nearest = nearest_sums(ours, theirs, wanted, distances);
    int32_t expected_nearest = kNoSum;
    for (size_t i = 0; i < count; ++i) {
      int32_t expected = kNoSum;
      for (const int32_t sum : theirs) {
        expected = std::min(expected, std::abs(ours[i] - sum - wanted));
      }
      CHECK(distances[i] == expected);
      expected_nearest = std::min(expected_nearest, expected);
    }
    CHECK(nearest == expected_nearest);
  }
}
