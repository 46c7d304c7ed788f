// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/climb_exchanges.h"

#include <algorithm>
#include <utility>

namespace eplbd {

ClimbExchanges::ClimbExchanges(const LayerState& state)
    : state_(state),
      half_(state.powers.size()),
      bounds_(state.powers.size()),
      per_move_(state.powers.size()),
      is_held_(state.topology.slots),
      was_held_(state.topology.slots),
      column_(state.topology.gpus, -1),
      allowed_(state.width * kBlock),
      halved_(state.width * kBlock) {}

// The GPUs that promise about the most first; then those that still promise more than what was
// found.
void ClimbExchanges::run(int32_t gpu, Candidate& best) {
  constexpr float kAboutTheMost = 0.9F;
  if (!state_.open(gpu)) return;
  bound_partners(gpu);
  const float most = *std::max_element(bounds_.begin(), bounds_.end());
  if (most <= best.worth) return;
  mark_slots(gpu, true);
  for (const float least : {kAboutTheMost * most, 0.0F}) {
    for (int32_t next = 0; next < state_.topology.gpus;) {
      next = gather_block(next, std::max(least, best.worth));
      if (!block_.empty()) try_block(gpu, block_, best);
    }
  }
  mark_slots(gpu, false);
}

// Of what an exchange with each GPU is worth: as if just the right load could go over, for one move
// where that is possible at all, else for two.
void ClimbExchanges::bound_partners(int32_t gpu) {
  bound_scenarios_.clear();
  for (const auto& scenario : state_.scenarios) {
    bound_scenarios_.push_back({scenario.weight, scenario.gpu_load[gpu], scenario.gpu_load.data()});
  }
  const auto& speed = state_.inverse_speed;
  for (size_t g = 0; g < half_.size(); ++g) half_[g] = speed[g] == speed[gpu] ? 0.5F : 0;
  exchange_bounds(bound_scenarios_, state_.powers.data(), half_.data(), state_.powers[gpu],
                  state_.doublings, bounds_);
  count_moves(gpu);
  for (size_t g = 0; g < bounds_.size(); ++g) {
    bounds_[g] = per_move_[g] > 0 ? bounds_[g] * per_move_[g] : 0;
  }
}

// An expert could go back there, or come back from there: one move.
void ClimbExchanges::count_moves(int32_t gpu) {
  const bool any_arrived = state_.arrivals[gpu] > 0;
  for (int32_t other = 0; other < state_.topology.gpus; ++other) {
    per_move_[other] = any_arrived || state_.arrivals[other] > 0 ? 1.0F : 0.5F;
  }
  for (int32_t slot = gpu * state_.width; slot < (gpu + 1) * state_.width; ++slot) {
    const auto one_move = [&](int32_t s) { per_move_[state_.gpu_of[s]] = 1; };
    if (state_.row[slot] != kNoExpert) state_.base.for_each(state_.row[slot], one_move);
    if (state_.base_row[slot] != kNoExpert) state_.now.for_each(state_.base_row[slot], one_move);
  }
  for (int32_t other = 0; other < state_.topology.gpus; ++other) {
    if (!state_.open(other)) per_move_[other] = 0;
  }
  per_move_[gpu] = 0;
}

// GPUs from `next` on that promise more than `least` and were not asked; returns where it stopped.
int32_t ClimbExchanges::gather_block(int32_t next, float least) {
  block_.clear();
  for (; next < state_.topology.gpus && block_.size() < kBlock; ++next) {
    if (bounds_[next] <= least) continue;
    block_.push_back(next);
    bounds_[next] = 0;
  }
  return next;
}

// The slots of other GPUs whose expert this GPU holds, or held.
void ClimbExchanges::mark_slots(int32_t gpu, bool on) {
  for (int32_t slot = gpu * state_.width; slot < (gpu + 1) * state_.width; ++slot) {
    if (const int32_t expert = state_.row[slot]; expert != kNoExpert) {
      state_.now.for_each(expert, [&](int32_t s) { is_held_[s] = on; });
    }
    if (const int32_t expert = state_.base_row[slot]; expert != kNoExpert) {
      state_.now.for_each(expert, [&](int32_t s) { was_held_[s] = on; });
    }
  }
}

// What the block's slots say. Columns that stay empty are never asked.
void ClimbExchanges::load_block(int32_t gpu, Block block) {
  const auto width = static_cast<size_t>(state_.width);
  for (size_t column = 0; column < block.size(); ++column) {
    const int32_t other = block[column];
    column_[other] = static_cast<int32_t>(column);
    before_[column] = state_.powers[gpu] + state_.powers[other];
    const size_t first = other * width;
    float* const allowed = allowed_.data() + column;
    float* const halved = halved_.data() + column;
    for (size_t i = 0; i < width; ++i) {
      const size_t slot = first + i;
      const bool may = !is_held_[slot] && state_.group_may_lie_on(state_.row[slot], gpu);
      const bool two_moves = may && !state_.arrived[slot] && !was_held_[slot];
      allowed[i * kBlock] = may ? 1.0F : 0.0F;
      halved[i * kBlock] = two_moves ? 0.5F : 0.0F;
    }
    const float speed = state_.inverse_speed[gpu];
    for (size_t l = 0; l < state_.scenarios.size(); ++l) {
      const float* const share = state_.scenarios[l].share.data() + first;
      const float* const rest = state_.scenarios[l].rest.data() + first;
      float* const gained = gained_.data() + l * width * kBlock + column;
      float* const others = others_.data() + l * width * kBlock + column;
      for (size_t i = 0; i < width; ++i) {
        gained[i * kBlock] = share[i] * speed;
        others[i * kBlock] = rest[i];
      }
    }
  }
}

// What the slot says to the block: its load, where its expert may go, and where it comes from.
void ClimbExchanges::ask(int32_t slot, Block block) {
  const int32_t mine = state_.row[slot];
  for (size_t i = 0; i < kBlock; ++i) my_allowed_[i] = i < block.size() ? 1.0F : 0.0F;
  const auto column_of = [&](int32_t s) { return column_[state_.gpu_of[s]]; };
  state_.now.for_each(mine, [&](int32_t s) {
    if (column_of(s) >= 0) my_allowed_[column_of(s)] = 0;
  });
  if (state_.grouped) {
    for (size_t i = 0; i < block.size(); ++i) {
      if (!state_.group_may_lie_on(mine, block[i])) my_allowed_[i] = 0;
    }
  }
  my_halved_ = my_allowed_;
  if (state_.arrived[slot]) my_halved_.fill(0);
  state_.base.for_each(mine, [&](int32_t s) {
    if (column_of(s) >= 0) my_halved_[column_of(s)] = 0;
  });
  for (size_t l = 0; l < scenarios_.size(); ++l) {
    const auto& scenario = state_.scenarios[l];
    scenarios_[l].rest = scenario.rest[slot];
    for (size_t i = 0; i < block.size(); ++i) {
      added_[l * kBlock + i] = scenario.share[slot] * state_.inverse_speed[block[i]];
    }
  }
}

void ClimbExchanges::try_block(int32_t gpu, Block block, Candidate& best) {
  const auto width = static_cast<size_t>(state_.width);
  const size_t count = state_.scenarios.size();
  gained_.resize(count * width * kBlock);
  others_.resize(count * width * kBlock);
  added_.resize(count * kBlock);
  scenarios_.resize(count);
  for (size_t l = 0; l < count; ++l) {
    scenarios_[l] = {state_.scenarios[l].weight, 0, &gained_[l * width * kBlock],
                     &others_[l * width * kBlock], &added_[l * kBlock]};
  }
  load_block(gpu, block);
  const ExchangeBlock said{before_.data(),     allowed_.data(),   halved_.data(),
                           my_allowed_.data(), my_halved_.data(), state_.width};
  float worth[kBlock];
  int32_t which[kBlock];
  std::fill_n(worth, kBlock, best.worth);
  std::fill_n(which, kBlock, -1);
  for (int32_t i = 0; i < state_.width; ++i) {
    const int32_t slot = gpu * state_.width + i;
    if (state_.row[slot] == kNoExpert) continue;
    ask(slot, block);
    best_exchanges(scenarios_, said, state_.doublings, i * state_.width, worth, which);
  }
  for (const int32_t partner : block) column_[partner] = -1;
  take_best(gpu, block, worth, which, best);
}

// The winner of each GPU against the others; of equals the first slots.
void ClimbExchanges::take_best(int32_t gpu, Block block, const float* worth, const int32_t* which,
                               Candidate& best) const {
  for (size_t column = 0; column < block.size(); ++column) {
    if (which[column] < 0 || worth[column] < best.worth) continue;
    const int32_t slot = gpu * state_.width + which[column] / state_.width;
    const int32_t other = block[column] * state_.width + which[column] % state_.width;
    const SlotChange changes[2] = {{slot, state_.row[other]}, {other, state_.row[slot]}};
    if (worth[column] == best.worth &&
        std::pair(slot, other) > std::pair(best.step.changes[0].slot, best.step.changes[1].slot)) {
      continue;
    }
    best.step = {
        {changes[0], changes[1]},
        2,
        state_.move_cost(slot, changes[0].expert) + state_.move_cost(other, changes[1].expert)};
    best.worth = worth[column];
  }
}

}  // namespace eplbd
