// What must be right before a layer is improved: nothing on GPUs that are down, no expert twice on
// a GPU, every expert somewhere, no slot empty.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <vector>

#include "core/balance/online/layer_climb.h"
#include "core/model/placement.h"

namespace eplbd {

bool LayerClimb::repair() {
  const auto& row = state_.row;
  std::vector<SlotChange> emptied;
  for (int32_t slot = 0; slot < state_.topology.slots; ++slot) {
    if (row[slot] == kNoExpert) continue;
    const int32_t gpu = state_.gpu_of[slot];
    const auto second = [&] {
      const auto before = state_.row_of(gpu).first(slot - gpu * state_.width);
      return std::find(before.begin(), before.end(), row[slot]) != before.end();
    };
    if (state_.down(gpu) || (!state_.twice && state_.replicas[row[slot]] > 1 && second())) {
      emptied.push_back({slot, kNoExpert});
    }
  }
  state_.put(emptied);
  std::vector<int32_t> lost;
  for (int32_t expert = 0; expert < state_.experts; ++expert) {
    if (state_.replicas[expert] == 0) lost.push_back(expert);
  }
  // The heaviest first: it has the most to choose from.
  const auto& load = state_.scenarios[0].expert_load;
  std::stable_sort(lost.begin(), lost.end(),
                   [&](int32_t a, int32_t b) { return load[a] > load[b]; });
  for (const int32_t expert : lost) {
    if (!find_place(expert)) return false;
  }
  for (int32_t slot = 0; slot < state_.topology.slots; ++slot) {
    if (row[slot] == kNoExpert && !state_.down(state_.gpu_of[slot]) && !fill(slot)) return false;
  }
  return true;
}

// In an empty slot, or else in that of a spare replica; on the GPU that is then least full.
bool LayerClimb::find_place(int32_t expert) {
  const auto& scenario = state_.scenarios[0];
  for (const bool spare : {false, true}) {
    int32_t best = -1;
    float best_load = std::numeric_limits<float>::infinity();
    for (int32_t slot = 0; slot < state_.topology.slots; ++slot) {
      const int32_t gpu = state_.gpu_of[slot];
      const int32_t old = state_.row[slot];
      if (state_.down(gpu) || !state_.group_may_lie_on(expert, gpu)) continue;
      if (spare ? old == kNoExpert || state_.replicas[old] < 2 : old != kNoExpert) continue;
      const float load =
          scenario.gpu_load[gpu] +
          (scenario.expert_load[expert] - scenario.share[slot]) * state_.inverse_speed[gpu];
      if (load < best_load) {
        best_load = load;
        best = slot;
      }
    }
    if (best < 0) continue;
    const SlotChange change{best, expert};
    state_.put({&change, 1});
    return true;
  }
  return false;
}

// With the replica that lowers the soft maximum most. An expert comes twice to a GPU only where
// there are fewer experts than slots.
bool LayerClimb::fill(int32_t slot) {
  const int32_t gpu = state_.gpu_of[slot];
  int32_t best = -1;
  double best_change = std::numeric_limits<double>::infinity();
  for (int32_t expert = 0; expert < state_.experts; ++expert) {
    const bool second = state_.holds(gpu, expert);
    if ((second && !state_.twice) || !state_.group_may_lie_on(expert, gpu)) continue;
    const double change = second ? 0 : turnovers_.change(slot, expert);
    if (change < best_change) {
      best_change = change;
      best = expert;
    }
  }
  if (best < 0) return false;
  const SlotChange change{slot, best};
  state_.put({&change, 1});
  return true;
}

}  // namespace eplbd
