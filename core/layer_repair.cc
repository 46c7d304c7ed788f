// What must be right before a layer is improved: nothing on GPUs that are down, no expert twice on
// a GPU, every expert somewhere, no slot empty.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "core/layer_climb.h"
#include "core/placement.h"

namespace eplbd {

bool LayerClimb::repair() {
  bool changed = false;
  for (int32_t slot = 0; slot < topology_.slots; ++slot) {
    if (row_[slot] == kNoExpert) continue;
    const int32_t gpu = topology_.gpu_of(slot);
    const bool second = width_ <= experts_ && copies_[cell(gpu, row_[slot])] > 1;
    if (!down(gpu) && !second) continue;
    put(slot, kNoExpert);
    changed = true;
  }
  if (changed) weigh();
  std::vector<int32_t> lost;
  for (int32_t expert = 0; expert < experts_; ++expert) {
    if (replicas_[expert] == 0) lost.push_back(expert);
  }
  // The heaviest first: it has the most to choose from.
  const auto& load = lanes_[0].expert_load;
  std::stable_sort(lost.begin(), lost.end(),
                   [&](int32_t a, int32_t b) { return load[a] > load[b]; });
  for (const int32_t expert : lost) {
    if (!find_place(expert)) return false;
  }
  for (int32_t slot = 0; slot < topology_.slots; ++slot) {
    if (row_[slot] == kNoExpert && !down(topology_.gpu_of(slot)) && !fill(slot)) return false;
  }
  return true;
}

// In an empty slot, or else in that of a spare replica; on the GPU that is then least full.
bool LayerClimb::find_place(int32_t expert) {
  const Lane& lane = lanes_[0];
  for (const bool spare : {false, true}) {
    int32_t best = -1;
    float best_load = std::numeric_limits<float>::infinity();
    for (int32_t slot = 0; slot < topology_.slots; ++slot) {
      const int32_t gpu = topology_.gpu_of(slot);
      const int32_t old = row_[slot];
      if (down(gpu) || !group_may_lie_on(expert, gpu)) continue;
      if (spare ? old == kNoExpert || replicas_[old] < 2 : old != kNoExpert) continue;
      const float load =
          lane.gpu_load[gpu] + (lane.expert_load[expert] - lane.share[slot]) * inverse_speed_[slot];
      if (load < best_load) {
        best_load = load;
        best = slot;
      }
    }
    if (best < 0) continue;
    put(best, expert);
    weigh();
    return true;
  }
  return false;
}

// With the replica that lowers the soft maximum most. An expert comes twice to a GPU only where
// there are fewer experts than slots.
bool LayerClimb::fill(int32_t slot) {
  const int32_t gpu = topology_.gpu_of(slot);
  int32_t best = -1;
  double best_change = std::numeric_limits<double>::infinity();
  for (int32_t expert = 0; expert < experts_; ++expert) {
    const bool second = holds(gpu, expert);
    if ((second && width_ <= experts_) || !group_may_lie_on(expert, gpu)) continue;
    const double change = second ? 0 : turnover_change(slot, expert);
    if (change < best_change) {
      best_change = change;
      best = expert;
    }
  }
  if (best < 0) return false;
  put(slot, best);
  weigh();
  return true;
}

}  // namespace eplbd
