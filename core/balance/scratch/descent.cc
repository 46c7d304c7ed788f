// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/descent.h"

#include "core/balance/scratch/replacement.h"

namespace eplbd {
namespace {

// One random change around a GPU: a replica more of one of its experts (or, where that does not go,
// of any), taken from an expert that has several; or an exchange with another GPU.
void kick(int32_t gpu, Random& random, RegionState& state) {
  constexpr int kTries = 8;
  const int32_t slot = gpu * state.slots_per_gpu + random.below(state.slots_per_gpu);
  const bool replacing = state.slots() > state.experts && random.below(4) != 0;
  int32_t expert = state.expert_at[slot];
  for (int i = 0; i < kTries; ++i) {
    if (replacing && i >= kTries / 2) expert = random.below(state.experts);
    const int32_t other = random.below(state.slots());
    const int32_t other_expert = state.expert_at[other];
    if (state.holds(state.gpu_of(other), expert)) continue;
    if (replacing && state.count[other_expert] > 1) return state.replace(other, expert);
    if (!replacing && !state.holds(gpu, other_expert)) return state.exchange(slot, other);
  }
}

}  // namespace

void Descent::run(double target, RegionState& state) {
  // Every step lowers the fullest GPU without making another as full, so it ends by itself; the
  // bound only keeps a long tail of tiny steps short.
  const int32_t most_steps = 8 * state.slots();
  for (int32_t i = 0; i < most_steps; ++i) {
    const int32_t gpu = state.fullest();
    if (state.time(gpu) <= target || !step(gpu, target, state)) return;
  }
}

bool Descent::step(int32_t gpu, double target, RegionState& state) {
  constexpr double kCoarse = 1 + 1e-4;  // nearer, a replica more or less is too large a change
  constexpr int32_t kSlots = 3;         // more find little that is lower, and take long
  const double time = state.time(gpu);
  if (time > target * (1 + constants_.far) &&
      (exchanges_.lower(gpu, target, 1, state) || replace_for(gpu, state))) {
    return true;
  }
  return exchanges_.settle(gpu, target, state) || exchanges_.lower(gpu, target, kSlots, state) ||
         (time > target * kCoarse && replace_for(gpu, state));
}

void Descent::attempt(double target, Random& random, RegionState& state) {
  before_ = state;
  const double peak = state.peak();
  const int32_t kicks = 1 + random.below(3);
  for (int32_t i = 0; i < kicks; ++i) {
    kick(i == 0 ? state.fullest() : random.below(state.gpus), random, state);
  }
  run(target, state);
  state.refresh_tokens();
  if (state.peak() > peak) state.go_back(before_);
}

}  // namespace eplbd
