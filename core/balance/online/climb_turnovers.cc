// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/climb_turnovers.h"

#include <algorithm>
#include <cstddef>

namespace eplbd {

TurnoverSearch::TurnoverSearch(const LayerState& state)
    : state_(state),
      mask_(state.relief.size()),
      spare_mask_(padded(state.topology.slots)),
      tried_(state.experts),
      falls_(state.topology.gpus),
      rises_(state.topology.gpus) {}

void TurnoverSearch::spares_of(int32_t gpu, Candidate& best) {
  if (!state_.open(gpu)) return;
  bool masked = false;
  for (int32_t slot = gpu * state_.width; slot < (gpu + 1) * state_.width; ++slot) {
    if (!state_.spare(slot)) continue;
    if (!masked) mask_experts(gpu);
    masked = true;
    find_expert_for(slot, best);
  }
}

// All experts at once: what the expert's other replicas fall by, less what the old one's rise by
// and what comes to the GPU. That is not the whole truth where a GPU holds both.
void TurnoverSearch::find_expert_for(int32_t slot, Candidate& best) {
  const int32_t gpu = state_.gpu_of[slot];
  const float own = state_.room[slot];
  float empty = 0;
  scenarios_.clear();
  for (const auto& scenario : state_.scenarios) {
    empty += scenario.weight * state_.power(scenario.rest[slot]);
    scenarios_.push_back({scenario.weight, scenario.rest[slot], state_.inverse_speed[gpu], nullptr,
                          scenario.gained.data()});
  }
  const Found found =
      best_turnover(scenarios_, state_.relief, mask_, empty, state_.doublings, best.worth - own);
  if (found.index >= 0) take(slot, found.index, own + found.worth, best);
}

// Experts whose replicas would fall furthest first, until no other can be worth more.
void TurnoverSearch::experts_of(int32_t gpu, Candidate& best) {
  wanting_.clear();
  for (int32_t slot = gpu * state_.width; slot < (gpu + 1) * state_.width; ++slot) {
    if (state_.row[slot] != kNoExpert) wanting_.push_back(slot);
  }
  if (wanting_.empty()) return;
  const auto relief = [&](int32_t slot) { return state_.relief[state_.row[slot]]; };
  std::sort(wanting_.begin(), wanting_.end(), [&](int32_t a, int32_t b) {
    return relief(a) != relief(b) ? relief(a) > relief(b) : a < b;
  });
  mask_spares(gpu);
  const Found most = most_left();
  if (most.index < 0) return;
  for (const int32_t slot : wanting_) {
    if (relief(slot) + most.worth <= best.worth) return;
    find_spare_for(state_.row[slot], gpu, best);
  }
}

// Of the relief of an expert, after what its new replica does to the GPU that gets it: when it
// adds as little as that of any that wants one.
Found TurnoverSearch::most_left() {
  scenarios_.clear();
  for (const auto& scenario : state_.scenarios) {
    float least = scenario.gained[state_.row[wanting_[0]]];
    for (const int32_t slot : wanting_) least = std::min(least, scenario.gained[state_.row[slot]]);
    scenarios_.push_back(
        {scenario.weight, 0, least, scenario.rest.data(), state_.slot_speed.data()});
  }
  return best_turnover(scenarios_, state_.room, spare_mask_, 0, state_.doublings, kNever);
}

// The same where another GPU holds both the spare's expert and the new one; or this GPU does, where
// the spare is elsewhere.
void TurnoverSearch::beside_each_other(int32_t gpu, Candidate& best) {
  const auto row = state_.row_of(gpu);
  for (int32_t slot = gpu * state_.width; slot < (gpu + 1) * state_.width; ++slot) {
    const int32_t old = state_.row[slot];
    if (old == kNoExpert || state_.replicas[old] < 2) continue;
    if (state_.spare(slot)) try_experts_beside(slot, best);
    state_.now.for_each(old, [&](int32_t spare) {
      if (spare == slot || !state_.spare(spare)) return;
      for (const int32_t expert : row) {
        if (expert != old) try_beside(spare, expert, best);
      }
    });
  }
}

// Each once: with many replicas of few experts most GPUs beside hold the same.
void TurnoverSearch::try_experts_beside(int32_t slot, Candidate& best) {
  state_.now.for_each(state_.row[slot], [&](int32_t beside) {
    if (beside == slot) return;
    for (const int32_t expert : state_.row_of(state_.gpu_of[beside])) {
      if (tried_.add(expert)) try_beside(slot, expert, best);
    }
  });
  tried_.clear();
}

// A GPU that holds both need not rise before it falls: at best nothing rises.
void TurnoverSearch::try_beside(int32_t slot, int32_t expert, Candidate& best) {
  if (state_.relief[expert] <= best.worth && !lightens(slot, expert)) return;
  const int32_t gpu = state_.gpu_of[slot];
  if (!state_.open(gpu) || state_.holds(gpu, expert) || !state_.group_may_lie_on(expert, gpu))
    return;
  float worth = state_.relief[expert] + state_.powers[gpu] - added_powers(slot, expert);
  if (worth <= best.worth) return;
  worth += state_.room[slot] - state_.powers[gpu];
  state_.now.for_each(expert, [&](int32_t falling) { ++falls_[state_.gpu_of[falling]]; });
  state_.now.for_each(state_.row[slot], [&](int32_t rising) {
    const int32_t beside = state_.gpu_of[rising];
    if (rising == slot || falls_[beside] == 0) return;
    for (int32_t s = beside * state_.width; s < (beside + 1) * state_.width; ++s) {
      if (state_.row[s] == expert) worth += spared_together(rising, s);
    }
  });
  state_.now.for_each(expert, [&](int32_t falling) { falls_[state_.gpu_of[falling]] = 0; });
  take(slot, expert, worth, best);
}

// Experts that may not come to this GPU.
void TurnoverSearch::mask_experts(int32_t gpu) {
  std::fill(mask_.begin(), mask_.begin() + state_.experts, 0.0F);
  std::fill(mask_.begin() + state_.experts, mask_.end(), kNever);
  for (const int32_t expert : state_.row_of(gpu)) mask_[expert] = kNever;
  if (!state_.grouped) return;
  for (int32_t expert = 0; expert < state_.experts; ++expert) {
    if (!state_.group_may_lie_on(expert, gpu)) mask_[expert] = kNever;
  }
}

// Spares on other GPUs.
void TurnoverSearch::mask_spares(int32_t gpu) {
  spare_mask_ = state_.spare_mask;
  std::fill_n(spare_mask_.begin() + gpu * state_.width, state_.width, kNever);
}

void TurnoverSearch::find_spare_for(int32_t expert, int32_t gpu, Candidate& best) {
  scenarios_.clear();
  for (const auto& scenario : state_.scenarios) {
    scenarios_.push_back({scenario.weight, 0, scenario.gained[expert], scenario.rest.data(),
                          state_.slot_speed.data()});
  }
  const bool everywhere = state_.replicas[expert] == 1 && !state_.grouped;
  if (!everywhere) mask_gpus_of(expert);
  const Found found = best_turnover(scenarios_, state_.room, spare_mask_, 0, state_.doublings,
                                    best.worth - state_.relief[expert]);
  if (found.index >= 0) take(found.index, expert, state_.relief[expert] + found.worth, best);
  if (!everywhere) mask_spares(gpu);
}

// Those that hold it, and those on which its group may not lie.
void TurnoverSearch::mask_gpus_of(int32_t expert) {
  const auto mask = [&](int32_t gpu) {
    std::fill_n(spare_mask_.begin() + gpu * state_.width, state_.width, kNever);
  };
  state_.now.for_each(expert, [&](int32_t slot) { mask(state_.gpu_of[slot]); });
  if (!state_.grouped) return;
  for (int32_t gpu = 0; gpu < state_.topology.gpus; ++gpu) {
    if (!state_.group_may_lie_on(expert, gpu)) mask(gpu);
  }
}

// A turnover costs one move, or none.
void TurnoverSearch::take(int32_t slot, int32_t expert, float worth, Candidate& best) {
  if (worth <= best.worth) return;
  if (state_.twice) worth = static_cast<float>(-change(slot, expert));
  if (worth <= best.worth) return;
  best.step = {{{slot, expert}, {}}, 1, state_.move_cost(slot, expert)};
  best.worth = worth;
}

// What it is better, in powers, that one of two slots of a GPU rises and the other falls at once.
float TurnoverSearch::spared_together(int32_t rising, int32_t falling) const {
  const int32_t gpu = state_.gpu_of[rising];
  float together = state_.powers[gpu];
  for (const auto& scenario : state_.scenarios) {
    const float load = scenario.gpu_load[gpu] + scenario.share[rising] * state_.rise[rising] -
                       scenario.share[falling] * state_.fall[falling];
    together -= scenario.weight * state_.power(load);
  }
  return together + state_.risen[rising] - state_.fallen[falling];
}

// Whether the slot may carry less with the expert in it.
bool TurnoverSearch::lightens(int32_t slot, int32_t expert) const {
  bool lighter = false;
  for (const auto& scenario : state_.scenarios)
    lighter |= scenario.gained[expert] < scenario.share[slot];
  return lighter;
}

// The powers of the slot's GPU with the expert there.
float TurnoverSearch::added_powers(int32_t slot, int32_t expert) const {
  const int32_t gpu = state_.gpu_of[slot];
  float sum = 0;
  for (const auto& scenario : state_.scenarios) {
    const float gained = scenario.gained[expert] - scenario.share[slot];
    sum +=
        scenario.weight * state_.power(scenario.gpu_load[gpu] + gained * state_.inverse_speed[gpu]);
  }
  return sum;
}

double TurnoverSearch::change(int32_t slot, int32_t expert) {
  const int32_t gpu = state_.gpu_of[slot];
  const int32_t old = state_.row[slot];
  touched_.assign(1, gpu);
  state_.now.for_each(expert, [&](int32_t s) {
    ++falls_[state_.gpu_of[s]];
    touched_.push_back(state_.gpu_of[s]);
  });
  if (old != kNoExpert) {
    state_.now.for_each(old, [&](int32_t s) {
      if (s == slot) return;
      ++rises_[state_.gpu_of[s]];
      touched_.push_back(state_.gpu_of[s]);
    });
  }
  std::sort(touched_.begin(), touched_.end());
  touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
  const auto count = static_cast<float>(state_.replicas[expert]);
  const float old_count = old == kNoExpert ? 0 : static_cast<float>(state_.replicas[old]);
  double result = 0;
  for (const auto& scenario : state_.scenarios) {
    const float gained = scenario.gained[expert];
    const float fall = count > 0 ? gained / count : 0;
    const float rise = old_count > 1 ? scenario.share[slot] / (old_count - 1) : 0;
    for (const int32_t g : touched_) {
      float shift = static_cast<float>(rises_[g]) * rise - static_cast<float>(falls_[g]) * fall;
      if (g == gpu) shift += gained - scenario.share[slot];
      const float load = scenario.gpu_load[g];
      result += scenario.weight *
                (state_.power(load + shift * state_.inverse_speed[g]) - state_.power(load));
    }
  }
  for (const int32_t g : touched_) falls_[g] = rises_[g] = 0;
  return result;
}

}  // namespace eplbd
