// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/traffic.h"

#include <catch2/catch.hpp>
#include <numeric>

#include "tests/eplbctl/temporary_file.h"

namespace eplbd {
namespace {

TEST_CASE("drawn traffic: every layer routes the same tokens, a seed repeats itself") {
  MixtureOptions options;
  options.layers = 5;
  options.experts = 16;
  options.seed = 7;
  DriftingMixture traffic(options);
  DriftingMixture again(options);
  options.seed = 8;
  DriftingMixture other(options);
  std::vector<uint32_t> counts(80), same(80), different(80);
  for (int step = 0; step < 20; ++step) {
    traffic.next(counts);
    again.next(same);
    other.next(different);
    CHECK(counts == same);
    CHECK(counts != different);
    const auto first = std::accumulate(counts.begin(), counts.begin() + 16, uint64_t{0});
    CHECK(first > 0);
    CHECK(first % 8 == 0);  // top_k
    for (int layer = 1; layer < 5; ++layer) {
      const auto row = counts.begin() + layer * 16;
      CHECK(std::accumulate(row, row + 16, uint64_t{0}) == first);
    }
  }
}

TEST_CASE("a trace is played over and over") {
  const TemporaryFile file("[[[1,2]],[[3,4]]]");
  TracePlayer player(file.name());
  std::vector<uint32_t> counts(2);
  for (int round = 0; round < 3; ++round) {
    player.next(counts);
    CHECK(counts == std::vector<uint32_t>{1, 2});
    player.next(counts);
    CHECK(counts == std::vector<uint32_t>{3, 4});
  }
}

}  // namespace
}  // namespace eplbd
