// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/replacement.h"

#include <algorithm>
#include <utility>

namespace eplbd {
namespace {

constexpr double kProgress = 1 - 1e-10;  // lower by more than rounding

struct Replacement {
  double peak = 0;  // of the GPUs that change, afterwards
  int32_t slot = -1;
  int32_t expert = -1;
};

double share_after(const RegionState& state, int32_t expert, int32_t more) {
  return state.weight[expert] / (state.count[expert] + more);
}

// The fullest GPU itself gives up its replica of `expert` for one of something lighter. `others`:
// what the fullest other holder comes to.
void find_on(int32_t gpu, int32_t expert, double others, const RegionState& state,
             Replacement& best) {
  if (others >= best.peak) return;
  const double without = state.tokens[gpu] - state.share[expert];
  for (int32_t next = 0; next < state.experts; ++next) {
    if (state.holds(gpu, next)) continue;
    const double ours = (without + share_after(state, next, 1)) * state.inverse_speed[gpu];
    const double peak = std::max(others, ours);
    if (peak < best.peak) best = {peak, state.slot_of(gpu, expert), next};
  }
}

// Another GPU gives up its replica of `expert` for one of an expert of the fullest GPU.
void find_for(int32_t gpu, int32_t other, int32_t expert, const RegionState& state,
              Replacement& best) {
  const double rise = share_after(state, expert, -1) - state.share[expert];
  for (int32_t i = 0; i < state.slots_per_gpu; ++i) {
    const int32_t next = state.expert_at[gpu * state.slots_per_gpu + i];
    if (next == expert || state.holds(other, next)) continue;
    const double share = share_after(state, next, 1);
    const double fall = state.share[next] - share;
    double peak = (state.tokens[other] - state.share[expert] + share) * state.inverse_speed[other];
    const double ours = state.tokens[gpu] - fall + (state.holds(gpu, expert) ? rise : 0);
    peak = std::max(peak, ours * state.inverse_speed[gpu]);
    if (peak >= best.peak) continue;
    state.for_each_holder(expert, [&](int32_t holder) {
      if (holder == other || holder == gpu) return;
      const double after = state.tokens[holder] + rise - (state.holds(holder, next) ? fall : 0);
      peak = std::max(peak, after * state.inverse_speed[holder]);
    });
    if (peak < best.peak) best = {peak, state.slot_of(other, expert), next};
  }
}

}  // namespace

bool replace_for(int32_t gpu, RegionState& state) {
  Replacement best;
  best.peak = state.time(gpu) * kProgress;
  for (int32_t expert = 0; expert < state.experts; ++expert) {
    if (state.count[expert] < 2) continue;
    // What losing one replica makes of the fullest two of its GPUs.
    const double rise = share_after(state, expert, -1) - state.share[expert];
    double most = 0, second = 0;
    int32_t most_gpu = -1;
    state.for_each_holder(expert, [&](int32_t holder) {
      const double after = (state.tokens[holder] + rise) * state.inverse_speed[holder];
      if (after > most) {
        second = std::exchange(most, after);
        most_gpu = holder;
      } else {
        second = std::max(second, after);
      }
    });
    state.for_each_holder(expert, [&](int32_t holder) {
      if (holder == gpu) {
        find_on(gpu, expert, most_gpu == gpu ? second : most, state, best);
      } else {
        find_for(gpu, holder, expert, state, best);
      }
    });
  }
  if (best.slot < 0) return false;
  state.replace(best.slot, best.expert);
  return true;
}

}  // namespace eplbd
