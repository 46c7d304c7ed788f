// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/climb_returns.h"

#include <algorithm>
#include <cmath>

namespace eplbd {

ReturnSearch::ReturnSearch(const LayerState& state) : state_(state) {}

void ReturnSearch::start(double sharpness, double price) {
  sharpness_ = sharpness;
  price_ = price;
  next_slot_ = 0;
  const size_t count = state_.scenarios.size();
  peaks_.resize(count);
  loads_.resize(count);
  terms_.resize(count);
  sums_.assign(count, 0);
  changes_.resize(count);
  for (size_t l = 0; l < count; ++l) {
    const auto& load = state_.scenarios[l].gpu_load;
    peaks_[l] = *std::max_element(load.begin(), load.end());
    loads_[l].assign(state_.topology.gpus, -1);
    terms_[l].assign(state_.topology.gpus, 0);
  }
}

std::optional<ClimbStep> ReturnSearch::next() {
  weigh();
  best_ = {};
  saved_ = 0;
  const int32_t slots = state_.topology.slots;
  for (int32_t tried = 0; tried < slots; ++tried) {
    const int32_t slot = next_slot_;
    next_slot_ = (next_slot_ + 1) % slots;
    if (!state_.arrived[slot]) continue;
    try_exchanges(slot);
    try_turning_back(slot);
    if (best_.count > 0) return best_;
  }
  return std::nullopt;
}

void ReturnSearch::weigh() {
  for (size_t l = 0; l < loads_.size(); ++l) {
    const auto& load = state_.scenarios[l].gpu_load;
    for (size_t gpu = 0; gpu < loads_[l].size(); ++gpu) {
      if (loads_[l][gpu] == load[gpu]) continue;
      loads_[l][gpu] = load[gpu];
      const double term = state_.live[gpu] * std::exp(sharpness_ * (load[gpu] - peaks_[l]));
      sums_[l] += term - terms_[l][gpu];
      terms_[l][gpu] = term;
    }
  }
}

// With any slot of a GPU on which its expert lay.
void ReturnSearch::try_exchanges(int32_t slot) {
  const int32_t expert = state_.row[slot];
  state_.base.for_each(expert, [&](int32_t home) {
    const int32_t gpu = state_.gpu_of[home];
    if (!state_.open(gpu) || state_.holds(gpu, expert)) return;
    for (int32_t other = gpu * state_.width; other < (gpu + 1) * state_.width; ++other) {
      try_exchange(slot, other);
    }
  });
}

void ReturnSearch::try_exchange(int32_t slot, int32_t other) {
  const int32_t gone = state_.row[slot];
  const int32_t come = state_.row[other];
  const int32_t here = state_.gpu_of[slot];
  const int32_t there = state_.gpu_of[other];
  if (come == kNoExpert || state_.holds(here, come)) return;
  const int32_t moves = state_.move_cost(slot, come) + state_.move_cost(other, gone);
  if (moves >= 0 || -moves * price_ <= saved_) return;
  if (!state_.group_may_lie_on(come, here) || !state_.group_may_lie_on(gone, there)) return;
  for (size_t l = 0; l < state_.scenarios.size(); ++l) {
    const auto& share = state_.scenarios[l].share;
    const float more = share[other] - share[slot];
    changes_[l].clear();
    change(l, here, more * state_.inverse_speed[here]);
    change(l, there, -more * state_.inverse_speed[there]);
  }
  consider({{{slot, come}, {other, gone}}, 2, moves});
}

// To an expert that lay on its GPU: the one that came has a replica fewer, that one more.
void ReturnSearch::try_turning_back(int32_t slot) {
  if (!state_.spare(slot)) return;
  const int32_t gone = state_.row[slot];
  const int32_t gpu = state_.gpu_of[slot];
  for (int32_t home = gpu * state_.width; home < (gpu + 1) * state_.width; ++home) {
    const int32_t come = state_.base_row[home];
    if (come == kNoExpert || state_.holds(gpu, come) || price_ <= saved_) continue;
    if (!state_.group_may_lie_on(come, gpu)) continue;
    const auto fewer = static_cast<float>(state_.replicas[gone] - 1);
    for (size_t l = 0; l < state_.scenarios.size(); ++l) {
      const auto& scenario = state_.scenarios[l];
      changes_[l].clear();
      const auto shift = [&](int32_t expert, float by) {
        state_.now.for_each(expert, [&](int32_t s) {
          if (s != slot) change(l, state_.gpu_of[s], by * state_.inverse_speed[state_.gpu_of[s]]);
        });
      };
      shift(gone, scenario.expert_load[gone] / fewer - scenario.share[slot]);
      const float gained = scenario.gained[come];
      if (state_.replicas[come] > 0) {
        shift(come,
              gained - scenario.expert_load[come] / static_cast<float>(state_.replicas[come]));
      }
      change(l, gpu, (gained - scenario.share[slot]) * state_.inverse_speed[gpu]);
    }
    consider({{{slot, come}, {}}, 1, -1});
  }
}

void ReturnSearch::consider(const ClimbStep& step) {
  const double saved = -step.moves * price_ - added_peak();
  if (saved <= saved_) return;
  saved_ = saved;
  best_ = step;
}

void ReturnSearch::change(size_t scenario, int32_t gpu, float by) {
  for (Change& change : changes_[scenario]) {
    if (change.gpu != gpu) continue;
    change.load += by;
    return;
  }
  changes_[scenario].push_back({gpu, by});
}

double ReturnSearch::added_peak() {
  double added = 0;
  for (size_t l = 0; l < changes_.size(); ++l) {
    double sum = sums_[l];
    for (const Change& change : changes_[l]) {
      const double load = state_.scenarios[l].gpu_load[change.gpu] + change.load;
      sum += std::exp(sharpness_ * (load - peaks_[l])) - terms_[l][change.gpu];
    }
    added += state_.scenarios[l].weight * std::log(std::max(sum, 1e-300) / sums_[l]) / sharpness_;
  }
  return added;
}

}  // namespace eplbd
