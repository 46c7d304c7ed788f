// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/pair_sums.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <utility>
#include <vector>

#include "core/balance/random.h"

using namespace eplbd;

namespace {

using Found = std::vector<std::pair<int16_t, int16_t>>;

Found pairs_between(const std::vector<int32_t>& weights, const std::vector<int16_t>& items,
                    int32_t low, int32_t high) {
  Found found;
  for (size_t i = 1; i < items.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const int32_t sum = weights[items[i]] + weights[items[j]];
      if (sum >= low && sum <= high) found.emplace_back(items[i], items[j]);
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

TEST_CASE("pairs are found by their sum, whatever the window", "[pair_sums]") {
  Random random(5);
  PairSums sums;
  for (const int32_t most : {1, 100, 1 << 20, 1 << 29}) {
    for (const int16_t count : {2, 3, 20, 48}) {
      std::vector<int32_t> weights(64);
      for (int32_t& weight : weights) weight = random.below(most + 1);
      std::vector<int16_t> items;
      for (int16_t i = 0; i < count; ++i) items.push_back(static_cast<int16_t>(63 - i));
      sums.build(weights, items);
      for (int i = 0; i < 300; ++i) {
        const int32_t width = random.below(3) == 0 ? random.below(most + 1) : random.below(3);
        const int32_t low = random.below(3 * (most / 2) + 3) - most / 8 - 1;
        const Found expected = pairs_between(weights, items, low, low + width);
        Found found;
        const bool stopped = sums.any_between(low, low + width, [&](const PairSums::Pair& pair) {
          CHECK(pair.sum == weights[pair.first] + weights[pair.second]);
          found.emplace_back(pair.first, pair.second);
          return false;
        });
        std::sort(found.begin(), found.end());
        CHECK_FALSE(stopped);
        CHECK(found == expected);
        // The first look may say yes for nothing, yet never no.
        if (!expected.empty()) CHECK(PairSums::Probe(sums, width).may_hold(low));
      }
    }
  }
}

TEST_CASE("a visit that has enough ends the search", "[pair_sums]") {
  PairSums sums;
  sums.build(std::vector<int32_t>{4, 4, 4, 4}, std::vector<int16_t>{0, 1, 2, 3});
  int visits = 0;
  CHECK(sums.any_between(8, 8, [&](const auto&) { return ++visits == 2; }));
  CHECK(visits == 2);
}
