// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/replacement.h"

#include <catch2/catch.hpp>
#include <vector>

#include "tests/core/balance/scratch/regions.h"

using namespace eplbd;

namespace {

// The least peak over the GPUs that a replacement which touches the fullest changes.
double least_peak(const RegionState& state, int32_t gpu) {
  double least = 1e300;
  for (int32_t slot = 0; slot < state.slots(); ++slot) {
    const int32_t old = state.expert_at[slot];
    if (state.count[old] < 2) continue;
    for (int32_t expert = 0; expert < state.experts; ++expert) {
      if (state.holds(state.gpu_of(slot), expert)) continue;
      if (state.gpu_of(slot) != gpu && !state.holds(gpu, expert)) continue;
      RegionState changed = state;
      changed.replace(slot, expert);
      double peak = changed.time(gpu);
      for (int32_t g = 0; g < state.gpus; ++g) {
        if (changed.version[g] != state.version[g]) peak = std::max(peak, changed.time(g));
      }
      least = std::min(least, peak);
    }
  }
  return least;
}

}  // namespace

TEST_CASE("a replacement lowers the fullest GPU where one does, nearly always the best",
          "[replacement]") {
  Random random(21);
  int replaced = 0, near = 0;
  for (int i = 0; i < 200; ++i) {
    RegionState state;
    state.reset(random_weights(7, 1.5, random),
                i % 2 == 0 ? std::vector<double>(4, 1.0) : mixed_speeds(4), 3);
    state.load(std::vector<int32_t>{0, 1, 2, 0, 3, 4, 5, 1, 6, 2, 0, 3});
    const int32_t gpu = state.fullest();
    const double before = state.peak();
    const double best = least_peak(state, gpu);
    const RegionState earlier = state;
    INFO("instance " << i);
    const bool lowered = replace_for(gpu, state);
    CHECK(lowered == (best < before * (1 - 1e-9)));
    if (!lowered) {
      CHECK(state.expert_at == earlier.expert_at);
      continue;
    }
    ++replaced;
    REQUIRE(is_consistent(state));
    double peak = state.time(gpu);
    for (int32_t g = 0; g < 4; ++g) {
      if (state.version[g] != earlier.version[g]) peak = std::max(peak, state.time(g));
    }
    // Of what falls on GPUs beside, it knows only a part.
    CHECK(peak >= best * (1 - 1e-9));
    CHECK(peak < before * (1 - 1e-11));
    near += peak <= best * (1 + 1e-9);
  }
  CHECK(replaced > 50);
  CHECK(near >= replaced * 8 / 10);
}
