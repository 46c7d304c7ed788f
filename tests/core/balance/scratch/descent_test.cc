// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/descent.h"

#include <catch2/catch.hpp>
#include <vector>

#include "core/balance/scratch/start.h"
#include "tests/core/balance/scratch/regions.h"

using namespace eplbd;

namespace {

RegionState started(int32_t experts, std::vector<double> speeds, int32_t slots_per_gpu,
                    Random& random) {
  RegionState state;
  state.reset(random_weights(experts, 1, random), speeds, slots_per_gpu);
  Start start;
  std::vector<int32_t> counts;
  start.count_by_water(state, counts);
  start.place(counts, state);
  return state;
}

}  // namespace

TEST_CASE("a descent reaches a target that many exchanges lead to", "[descent]") {
  const SearchConstants constants;
  Random random(4);
  for (int i = 0; i < 20; ++i) {
    RegionState state = started(64, std::vector<double>(8, 1.0), 9, random);
    Descent descent(constants);
    descent.reset(state);
    const double target = state.mean * (1 + 1e-3);
    descent.run(target, state);
    CHECK(is_consistent(state));
    CHECK(state.peak() <= target * (1 + 1e-12));
  }
}

TEST_CASE("a descent never ends higher than it began, whatever the target", "[descent]") {
  const SearchConstants constants;
  Random random(6);
  for (int i = 0; i < 100; ++i) {
    RegionState state =
        started(10, i % 2 == 0 ? std::vector<double>(6, 1.0) : mixed_speeds(6), 3, random);
    Descent descent(constants);
    descent.reset(state);
    const double before = state.peak();
    descent.run(i % 3 == 0 ? 0 : state.mean, state);
    CHECK(is_consistent(state));
    CHECK(state.peak() <= before * (1 + 1e-12));
    const double ended = state.peak();
    for (int k = 0; k < 20; ++k) descent.attempt(state.mean, random, state);
    CHECK(is_consistent(state));
    CHECK(state.peak() <= ended * (1 + 1e-12));
  }
}
