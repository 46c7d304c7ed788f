// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/traffic.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <span>

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

// How far the shares of experts went in so many steps: of the squared distance of a share from an
// even one, what chance explains taken out.
double drifted(std::span<const uint32_t> before, std::span<const uint32_t> after) {
  const auto total = [](auto counts) { return std::accumulate(counts.begin(), counts.end(), 0.0); };
  const double tokens[] = {total(before), total(after)};
  double distance = 0;
  double spread = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    const double share = before[i] / tokens[0];
    const double now = after[i] / tokens[1];
    const double even = 1.0 / static_cast<double>(before.size());
    distance += (share - now) * (share - now) - share / tokens[0] - now / tokens[1];
    spread += (share - even) * (share - even);
  }
  return distance / spread;
}

TEST_CASE("drawn traffic drifts slowly and jumps rarely, as recorded traffic does") {
  MixtureOptions options;
  options.layers = 1;
  std::vector<double> over_ten;  // steps
  for (options.seed = 0; options.seed < 4; ++options.seed) {
    DriftingMixture traffic(options);
    std::vector<std::vector<uint32_t>> steps(200, std::vector<uint32_t>(256));
    for (auto& counts : steps) traffic.next(counts);
    for (size_t i = 0; i + 10 < steps.size(); i += 10) {
      over_ten.push_back(drifted(steps[i], steps[i + 10]));
    }
  }
  std::sort(over_ten.begin(), over_ten.end());
  // Six recorded workloads of DeepSeek-V3 whose mix drifts: 0.0002 as a rule, 0.004 in the mean.
  CHECK(over_ten[over_ten.size() / 2] < 0.002);
  CHECK(over_ten[over_ten.size() * 8 / 10] < 0.02);
  CHECK(over_ten.back() > 0.02);  // a jump
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
