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

}  // namespace

void ExchangeSearch::reset(const RegionState& state) {
  if (state.slots_per_gpu != slots_per_gpu_) list_subsets(state.slots_per_gpu);
  const double peak = state.peak();
  scale_ = peak > 0 ? kFixedPointPeak / peak : 0;
  const auto gpus = static_cast<size_t>(state.gpus);
  movable_.resize(gpus * slots_per_gpu_);
  places_.resize(gpus);
  for (Kind& kind : kinds_) {
    kind.sums.resize(gpus * kind.padded);
    kind.version.assign(gpus, 0);
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
    kind.ending_before.push_back(0);
    for (int32_t place = 0; place < slots_per_gpu; ++place) {
      const size_t smaller = size == 1 ? 1 : kinds_.back().ending_before[place];
      for (size_t i = 0; i < smaller; ++i) {
        Subset subset = size == 1 ? Subset{} : kinds_.back().subsets[i];
        subset.places[subset.size++] = static_cast<int16_t>(place);
        kind.subsets.push_back(subset);
      }
      kind.ending_before.push_back(kind.subsets.size());
    }
    if (size > 1 && static_cast<int32_t>(kind.subsets.size()) > constants_.most_subsets) break;
    kind.padded = (kind.subsets.size() + kSumLanes - 1) / kSumLanes * kSumLanes;
    kinds_.push_back(std::move(kind));
  }
}

std::span<const int32_t> ExchangeSearch::sums(size_t index, int32_t gpu, const RegionState& state) {
  Kind& kind = kinds_[index];
  int32_t* const first = kind.sums.data() + static_cast<size_t>(gpu) * kind.padded;
  if (kind.version[gpu] != state.version[gpu]) {
    kind.version[gpu] = state.version[gpu];
    if (index == 0) {
      list_movable(gpu, state, first);
    } else {
      const std::span<const int32_t> smaller = sums(index - 1, gpu, state);
      const std::span<const int32_t> shares = sums(0, gpu, state);
      for (size_t place = 0; place < shares.size(); ++place) {
        int32_t* const ending = first + kind.ending_before[place];
        const size_t count = kinds_[index - 1].ending_before[place];
        for (size_t i = 0; i < count; ++i) ending[i] = smaller[i] + shares[place];
      }
    }
    std::fill(first + kind.ending_before[places_[gpu]], first + kind.padded, kNoSum);
  }
  return {first, kind.ending_before[places_[gpu]]};
}

// What lies on every GPU cannot be exchanged.
void ExchangeSearch::list_movable(int32_t gpu, const RegionState& state, int32_t* shares) {
  int32_t places = 0;
  for (int32_t slot = gpu * slots_per_gpu_; slot < (gpu + 1) * slots_per_gpu_; ++slot) {
    const int32_t expert = state.expert_at[slot];
    if (state.count[expert] == state.gpus) continue;
    movable_[gpu * slots_per_gpu_ + places] = slot;
    shares[places++] = static_cast<int32_t>(state.share[expert] * scale_);
  }
  places_[gpu] = places;
}

double ExchangeSearch::tokens_in(const RegionState& state, int32_t gpu,
                                 const Subset& subset) const {
  double sum = 0;
  for (const int16_t place : subset.used()) {
    sum += state.share[state.expert_at[slot_at(gpu, place)]];
  }
  return sum;
}

// Whether GPU `to` holds none of these that `from` has.
bool ExchangeSearch::may_take(const RegionState& state, int32_t to, int32_t from,
                              const Subset& subset) const {
  return std::ranges::none_of(subset.used(), [&](int16_t place) {
    return state.holds(to, state.expert_at[slot_at(from, place)]);
  });
}

ExchangeSearch::Exchange ExchangeSearch::find(size_t kind, int32_t gpu, int32_t other,
                                              Window window, const RegionState& state) {
  Exchange best;
  const std::vector<Subset>& subsets = kinds_[kind].subsets;
  const std::span<const int32_t> ours = sums(kind, gpu, state);
  const std::span<const int32_t> theirs = sums(kind, other, state);
  const auto wanted = static_cast<int32_t>(window.wanted * scale_);
  double off = std::max(window.high - window.wanted, window.wanted - window.low);
  auto radius = static_cast<int32_t>(off * scale_) + kRounding;
  std::array<int32_t, kSumLanes> distances;
  for (size_t first = 0; first < ours.size(); first += kSumLanes) {
    const std::span lanes(ours.data() + first, kSumLanes);
    if (nearest_sums(lanes, theirs, wanted, distances) > radius) continue;
    for (size_t lane = 0; lane < kSumLanes; ++lane) {
      if (distances[lane] > radius) continue;
      for (size_t j = 0; j < theirs.size(); ++j) {
        if (std::abs(lanes[lane] - theirs[j] - wanted) > radius) continue;
        const Subset& our_slots = subsets[first + lane];
        const Subset& their_slots = subsets[j];
        const double given =
            tokens_in(state, gpu, our_slots) - tokens_in(state, other, their_slots);
        if (given < window.low || given > window.high || std::abs(given - window.wanted) >= off ||
            !may_take(state, other, gpu, our_slots) || !may_take(state, gpu, other, their_slots)) {
          continue;
        }
        best = {given, other, &our_slots, &their_slots};
        if (window.any) return best;
        off = std::abs(given - window.wanted);
        radius = static_cast<int32_t>(off * scale_) + kRounding;
      }
    }
  }
  return best;
}

bool ExchangeSearch::settle(int32_t gpu, double target, RegionState& state) {
  const double share = share_of_room(target, state);
  if (share <= 0) return false;
  for (size_t kind = kinds_.size(); kind-- > 0;) {
    for (int32_t other = 0; other < state.gpus; ++other) {
      if (other != gpu && settle_with(kind, gpu, other, target, share, state)) return true;
    }
  }
  return false;
}

// Of the room below the target that those have left together who are not settled, what one of them
// may use up so that each of the others but the last may as much.
double ExchangeSearch::share_of_room(double target, const RegionState& state) const {
  double left = 0;
  int32_t open = 0;
  for (int32_t gpu = 0; gpu < state.gpus; ++gpu) {
    const double room = target * state.speed[gpu] - state.tokens[gpu];
    if (room >= 0 && room <= 2 * (target - state.mean) * state.speed[gpu]) continue;
    left += room;
    ++open;
  }
  return open > 1 ? left / (open - 1) : 0;
}

bool ExchangeSearch::settle_with(size_t kind, int32_t gpu, int32_t other, double target,
                                 double share, RegionState& state) {
  const double excess = state.tokens[gpu] - target * state.speed[gpu];
  const double room = target * state.speed[other] - state.tokens[other];
  Window window{room - share, room, 0, true};
  if (room >= excess) window = {excess, std::min(excess + share, room), 0, true};
  if (window.low <= 0) return false;
  window.wanted = (window.low + window.high) / 2;
  const Exchange exchange = find(kind, gpu, other, window, state);
  if (exchange.other < 0) return false;
  carry_out(gpu, exchange, state);
  return true;
}

bool ExchangeSearch::lower(int32_t gpu, double target, int32_t most_slots, RegionState& state) {
  const size_t kinds = std::min(kinds_.size(), static_cast<size_t>(most_slots));
  for (size_t kind = 0; kind < kinds; ++kind) {
    const Exchange lowest = find_lowest(kind, gpu, target, state);
    if (lowest.other < 0) continue;
    carry_out(gpu, lowest, state);
    return true;
  }
  return false;
}

ExchangeSearch::Exchange ExchangeSearch::find_lowest(size_t kind, int32_t gpu, double target,
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
                           tokens - even * speed, false};
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
    state.exchange(slot_at(gpu, exchange.ours->places[i]),
                   slot_at(exchange.other, exchange.theirs->places[i]));
  }
}

}  // namespace eplbd
