// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/exchange.h"

#include <catch2/catch.hpp>
#include <vector>

#include "tests/core/balance/scratch/regions.h"

using namespace eplbd;

namespace {

RegionState region(std::vector<double> weights, std::vector<double> speeds, int32_t slots_per_gpu,
                   std::vector<int32_t> map) {
  RegionState state;
  state.reset(weights, speeds, slots_per_gpu);
  state.load(map);
  return state;
}

// What the fuller of two GPUs comes to by the best exchange of so many slots, with each other.
double least_peak(const RegionState& state, int32_t gpu, int32_t slots) {
  const int32_t width = state.slots_per_gpu;
  double least = 1e300;
  for (int32_t other = 0; other < state.gpus; ++other) {
    for (uint32_t ours = 0; ours < (1U << width); ++ours) {
      for (uint32_t theirs = 0; theirs < (1U << width); ++theirs) {
        if (other == gpu || __builtin_popcount(ours) != slots ||
            __builtin_popcount(theirs) != slots) {
          continue;
        }
        double given = 0;
        bool allowed = true;
        for (int32_t i = 0; i < width; ++i) {
          const int32_t mine = state.expert_at[gpu * width + i];
          const int32_t its = state.expert_at[other * width + i];
          if (ours >> i & 1) given += state.share[mine], allowed &= !state.holds(other, mine);
          if (theirs >> i & 1) given -= state.share[its], allowed &= !state.holds(gpu, its);
        }
        if (!allowed) continue;
        least = std::min(least, std::max((state.tokens[gpu] - given) / state.speed[gpu],
                                         (state.tokens[other] + given) / state.speed[other]));
      }
    }
  }
  return least;
}

}  // namespace

TEST_CASE("the fullest GPU is settled, and no GPU rises above the target", "[exchange]") {
  const SearchConstants constants;
  Random random(5);
  int settled = 0;
  for (int i = 0; i < 100; ++i) {
    RegionState state;
    state.reset(random_weights(36, 0.5, random),
                i % 2 == 0 ? std::vector<double>(4, 1.0) : mixed_speeds(4), 9);
    std::vector<int32_t> map(36);
    for (int32_t slot = 0; slot < 36; ++slot) map[slot] = slot;
    state.load(map);
    ExchangeSearch exchanges(constants);
    exchanges.reset(state);
    const double target = state.mean * (1 + 1e-3);
    const RegionState before = state;
    const int32_t gpu = state.fullest();
    if (!exchanges.settle(gpu, target, state)) {
      CHECK(state.expert_at == before.expert_at);
      continue;
    }
    ++settled;
    REQUIRE(is_consistent(state));
    int32_t now_settled = 0;
    for (int32_t g = 0; g < 4; ++g) {
      if (before.time(g) <= target) CHECK(state.time(g) <= target * (1 + 1e-9));
      now_settled += before.tokens[g] != state.tokens[g] &&
                     state.time(g) >= state.mean * (1 - 2e-3) &&
                     state.time(g) <= target * (1 + 1e-9);
    }
    CHECK(now_settled >= 1);
    CHECK(state.time(gpu) < before.time(gpu));
  }
  CHECK(settled > 90);
}

TEST_CASE("GPUs are settled one after the other, and the last have room left", "[exchange]") {
  const SearchConstants constants;
  constexpr int32_t kGpus = 8;
  Random random(9);
  for (int i = 0; i < 20; ++i) {
    RegionState state;
    state.reset(random_weights(9 * kGpus, 1, random), std::vector<double>(kGpus, 1.0), 9);
    std::vector<int32_t> map(9 * kGpus);
    for (int32_t slot = 0; slot < 9 * kGpus; ++slot) map[slot] = slot;
    state.load(map);
    ExchangeSearch exchanges(constants);
    exchanges.reset(state);
    for (int32_t step = 0; step < 20; ++step) exchanges.lower(state.fullest(), 0, 1, state);
    const double target = state.mean * (1 + 5e-4);
    int32_t steps = 0;
    while (state.peak() > target && exchanges.settle(state.fullest(), target, state)) ++steps;
    INFO("instance " << i);
    CHECK(state.peak() <= target * (1 + 1e-12));
    CHECK(steps < kGpus);
  }
}

TEST_CASE("lower finds the best exchange that there is", "[exchange]") {
  const SearchConstants constants;
  Random random(8);
  for (int i = 0; i < 100; ++i) {
    RegionState state;
    state.reset(random_weights(8, 1, random),
                i % 2 == 0 ? std::vector<double>(4, 1.0) : mixed_speeds(4), 3);
    state.load(std::vector<int32_t>{0, 1, 2, 0, 3, 4, 5, 1, 6, 7, 0, 3});
    ExchangeSearch exchanges(constants);
    exchanges.reset(state);
    const int32_t gpu = state.fullest();
    const double before = state.peak();
    const double best = least_peak(state, gpu, 1);
    const RegionState earlier = state;
    // The target is out of reach, so only the best is low enough.
    const bool lowered = exchanges.lower(gpu, -1e9, 1, state);
    INFO("instance " << i);
    CHECK(lowered == (best < before * (1 - 1e-9)));
    if (!lowered) continue;
    REQUIRE(is_consistent(state));
    double peak = 0;
    for (int32_t g = 0; g < 4; ++g) {
      if (state.tokens[g] != earlier.tokens[g]) peak = std::max(peak, state.time(g));
    }
    CHECK(peak <= best * (state.alike ? 1 + 1e-6 : 1.1));
    CHECK(peak < before);
  }
}

TEST_CASE("an expert is not exchanged to a GPU that holds it", "[exchange]") {
  const SearchConstants constants;
  RegionState state = region({20, 1, 1, 3}, {1, 1}, 3, {0, 1, 2, 0, 1, 3});
  ExchangeSearch exchanges(constants);
  exchanges.reset(state);
  CHECK(state.fullest() == 1);
  CHECK_FALSE(exchanges.lower(0, 0, 3, state));
  CHECK(exchanges.ways() == 9);
}
