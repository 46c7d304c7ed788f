// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/source_counters.h"

#include <catch2/catch.hpp>
#include <numeric>

namespace eplbd {
namespace {

using Counts = std::vector<uint32_t>;

Counts reported(SourceCounters& counters, int32_t source, const Counts& counts) {
  const auto report = counters.report(source, counts);
  return {report.begin(), report.end()};
}

TEST_CASE("one source reports each step as it is, at its end") {
  SourceCounters one(1, 2, 4);
  CHECK(one.phase(0) == 1);
  const Counts counts = {7, 0, 1, 5, /**/ 3, 3, 3, 4};
  CHECK(reported(one, 0, counts) == counts);
  CHECK(reported(one, 0, counts) == Counts{14, 0, 2, 10, /**/ 6, 6, 6, 8});
}

TEST_CASE("sources share the traffic: nothing lost, each the same part of every layer") {
  const Counts step = {7, 0, 1, 5, /**/ 3, 3, 3, 4};
  const Counts silence(8, 0);
  for (const int32_t sources : {1, 2, 3, 5, 20}) {
    CAPTURE(sources);
    SourceCounters counters(sources, 2, 4);
    Counts sum(8, 0);
    for (int32_t source = 0; source < sources; ++source) {
      const Counts part = reported(counters, source, step);
      CHECK(std::accumulate(part.begin(), part.begin() + 4, 0U) ==
            std::accumulate(part.begin() + 4, part.end(), 0U));
      // All of the step has passed when the next report comes.
      const Counts share = reported(counters, source, silence);
      for (size_t i = 0; i < 8; ++i) {
        CHECK(part[i] <= share[i]);
        sum[i] += share[i];
      }
      CHECK(std::accumulate(share.begin(), share.begin() + 4, 0U) ==
            std::accumulate(share.begin() + 4, share.end(), 0U));
    }
    CHECK(sum == step);
  }
}

TEST_CASE("a report in the middle of a step holds what has passed of it") {
  SourceCounters counters(4, 1, 2);
  for (int32_t source = 0; source < 4; ++source) {
    CHECK(counters.phase(source) == Approx(0.25 * (source + 1)));
    const auto part = static_cast<uint32_t>(source + 1);
    CHECK(reported(counters, source, {1600, 0}) == Counts{100 * part, 0});
    CHECK(reported(counters, source, {0, 800}) == Counts{400, 50 * part});
  }
}

TEST_CASE("a counter goes round at 32 bits") {
  SourceCounters one(1, 1, 1);
  reported(one, 0, {0xFFFFFFF0});
  CHECK(reported(one, 0, {0x20}) == Counts{0x10});
}

}  // namespace
}  // namespace eplbd
