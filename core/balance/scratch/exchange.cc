// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/exchange.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "core/balance/scratch/nearest_sum.h"

namespace eplbd {
namespace {

// What the peak is in fixed point: sums may come to 32 times as much.
constexpr double kFixedPointPeak = 0x1p24;
constexpr int32_t kRounding = 8;         // of fixed point, for all slots of two subsets
constexpr double kProgress = 1 - 1e-10;  // lower by more than rounding

double tokens_in(const RegionState& state, int32_t gpu, std::span<const int16_t> slots) {
  double sum = 0;
  for (const int16_t slot : slots) {
    sum += state.share[state.expert_at[gpu * state.slots_per_gpu + slot]];
  }
  return sum;
}

// Whether GPU `to` holds none of what `from` has in these slots.
bool may_take(const RegionState& state, int32_t to, int32_t from, std::span<const int16_t> slots) {
  return std::none_of(slots.begin(), slots.end(), [&](int16_t slot) {
    return state.holds(to, state.expert_at[from * state.slots_per_gpu + slot]);
  });
}

}  // namespace

void ExchangeSearch::reset(const RegionState& state) {
  if (state.slots_per_gpu != slots_per_gpu_) list_subsets(state.slots_per_gpu);
  const double peak = state.peak();
  scale_ = peak > 0 ? kFixedPointPeak / peak : 0;
  for (Kind& kind : kinds_) {
    kind.sums.resize(kind.padded * static_cast<size_t>(state.gpus), kNoSum);
    kind.version.assign(static_cast<size_t>(state.gpus), 0);
  }
}

double ExchangeSearch::ways() const {
  const auto subsets = static_cast<double>(kinds_.back().subsets.size());
  return subsets * subsets;
}

// One slot, and more while there are not too many ways.
void ExchangeSearch::list_subsets(int32_t slots_per_gpu) {
  slots_per_gpu_ = slots_per_gpu;
  kinds_.clear();
  const int32_t most_slots =
      std::clamp(slots_per_gpu / 2, 1, std::min(constants_.most_slots, kMostSlots));
  for (int32_t size = 1; size <= most_slots; ++size) {
    Kind kind;
    Subset subset{size, {}};
    const auto extend = [&](auto& self, int32_t chosen, int32_t from) -> void {
      if (chosen == size) return kind.subsets.push_back(subset);
      for (int32_t slot = from; slot < slots_per_gpu; ++slot) {
        subset.slots[chosen] = static_cast<int16_t>(slot);
        self(self, chosen + 1, slot + 1);
      }
    };
    extend(extend, 0, 0);
    if (size > 1 && static_cast<int32_t>(kind.subsets.size()) > constants_.most_subsets) break;
    kind.padded = (kind.subsets.size() + kSumLanes - 1) / kSumLanes * kSumLanes;
    distances_.resize(std::max(distances_.size(), kind.padded));
    kinds_.push_back(std::move(kind));
  }
}

std::span<const int32_t> ExchangeSearch::sums(Kind& kind, int32_t gpu, const RegionState& state) {
  int32_t* const first = kind.sums.data() + static_cast<size_t>(gpu) * kind.padded;
  if (kind.version[gpu] != state.version[gpu]) {
    kind.version[gpu] = state.version[gpu];
    const int32_t* const held = &state.expert_at[gpu * slots_per_gpu_];
    shares_.resize(static_cast<size_t>(slots_per_gpu_));
    for (int32_t slot = 0; slot < slots_per_gpu_; ++slot) {
      shares_[slot] = static_cast<int32_t>(state.share[held[slot]] * scale_);
    }
    int32_t* sum = first;
    const int32_t size = kind.subsets.front().size;
    const auto extend = [&](auto& self, int32_t chosen, int32_t from, int32_t so_far) -> void {
      if (chosen + 1 == size) {
        for (int32_t slot = from; slot < slots_per_gpu_; ++slot) *sum++ = so_far + shares_[slot];
        return;
      }
      for (int32_t slot = from; slot < slots_per_gpu_; ++slot) {
        self(self, chosen + 1, slot + 1, so_far + shares_[slot]);
      }
    };
    extend(extend, 0, 0, 0);
  }
  return {first, kind.padded};
}

ExchangeSearch::Exchange ExchangeSearch::find(Kind& kind, int32_t gpu, int32_t other, Window window,
                                              const RegionState& state) {
  Exchange best;
  const std::span<const int32_t> ours = sums(kind, gpu, state);
  const auto theirs = sums(kind, other, state).first(kind.subsets.size());
  const auto wanted = static_cast<int32_t>(window.wanted * scale_);
  double off = std::max(window.high - window.wanted, window.wanted - window.low);
  auto radius = static_cast<int32_t>(off * scale_) + kRounding;
  const auto distances = std::span(distances_).first(ours.size());
  if (nearest_sums(ours, theirs, wanted, distances) > radius) return best;
  for (size_t i = 0; i < kind.subsets.size(); ++i) {
    if (distances[i] > radius) continue;
    for (size_t j = 0; j < theirs.size(); ++j) {
      if (std::abs(ours[i] - theirs[j] - wanted) > radius) continue;
      const auto our_slots = kind.subsets[i].used();
      const auto their_slots = kind.subsets[j].used();
      const double given = tokens_in(state, gpu, our_slots) - tokens_in(state, other, their_slots);
      if (given < window.low || given > window.high || std::abs(given - window.wanted) >= off ||
          !may_take(state, other, gpu, our_slots) || !may_take(state, gpu, other, their_slots)) {
        continue;
      }
      best = {given, other, &kind.subsets[i], &kind.subsets[j]};
      off = std::abs(given - window.wanted);
      radius = static_cast<int32_t>(off * scale_) + kRounding;
    }
  }
  return best;
}

bool ExchangeSearch::settle(int32_t gpu, double target, RegionState& state) {
  for (Kind& kind : kinds_) {
    for (int32_t other = 0; other < state.gpus; ++other) {
      if (other != gpu && settle_with(kind, gpu, other, target, state)) return true;
    }
  }
  return false;
}

bool ExchangeSearch::settle_with(Kind& kind, int32_t gpu, int32_t other, double target,
                                 RegionState& state) {
  const double excess = state.tokens[gpu] - target * state.speed[gpu];
  const double room = target * state.speed[other] - state.tokens[other];
  const double width = (target - state.mean) * state.speed[room >= excess ? gpu : other];
  Window window;
  if (room >= excess) {
    window.low = excess;
    window.high = std::min(excess + width, room);
  } else {
    window.low = room - width;
    window.high = room;
  }
  if (window.low <= 0) return false;
  window.wanted = (window.low + window.high) / 2;
  const Exchange exchange = find(kind, gpu, other, window, state);
  if (exchange.other < 0) return false;
  carry_out(gpu, exchange, state);
  return true;
}

bool ExchangeSearch::lower(int32_t gpu, double target, int32_t most_slots, RegionState& state) {
  for (Kind& kind : kinds_) {
    if (kind.subsets.front().size > most_slots) return false;
    const Exchange lowest = find_lowest(kind, gpu, target, state);
    if (lowest.other < 0) continue;
    carry_out(gpu, lowest, state);
    return true;
  }
  return false;
}

ExchangeSearch::Exchange ExchangeSearch::find_lowest(Kind& kind, int32_t gpu, double target,
                                                     const RegionState& state) {
  Exchange best;
  const double before = state.time(gpu);
  const double enough = target + constants_.left_of_the_way * std::max(0.0, before - target);
  const double tokens = state.tokens[gpu];
  const double speed = state.speed[gpu];
  double peak = before * kProgress;
  const auto consider = [&](int32_t other) {
    const double other_tokens = state.tokens[other];
    const double other_speed = state.speed[other];
    const double even = (tokens + other_tokens) / (speed + other_speed);
    if (other == gpu || even >= peak) return;
    const Window window = {tokens - peak * speed, peak * other_speed - other_tokens,
                           tokens - even * speed};
    const Exchange exchange = find(kind, gpu, other, window, state);
    if (exchange.other < 0) return;
    best = exchange;
    peak = std::max((tokens - best.given) / speed, (other_tokens + best.given) / other_speed);
  };
  int32_t emptiest = 0;
  for (int32_t other = 1; other < state.gpus; ++other) {
    if (state.time(other) < state.time(emptiest)) emptiest = other;
  }
  consider(emptiest);  // its outcome rules out most others
  for (int32_t other = 0; other < state.gpus && peak > enough; ++other) {
    if (other != emptiest) consider(other);
  }
  return best;
}

void ExchangeSearch::carry_out(int32_t gpu, const Exchange& exchange, RegionState& state) const {
  for (int32_t i = 0; i < exchange.ours->size; ++i) {
    state.exchange(gpu * slots_per_gpu_ + exchange.ours->slots[i],
                   exchange.other * slots_per_gpu_ + exchange.theirs->slots[i]);
  }
}

}  // namespace eplbd
