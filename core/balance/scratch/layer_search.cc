// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/layer_search.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <utility>

#include "core/balance/scratch/nearest_sum.h"

namespace eplbd {
namespace {

constexpr double kCoarse = 1 + 1e-4;

}  // namespace

template <typename Visit>
void LayerSearch::for_each_holder(int32_t expert, Visit visit) const {
  for (size_t word = 0; word < words_; ++word) {
    for (uint64_t bits = state_.holders[expert * words_ + word]; bits != 0; bits &= bits - 1) {
      visit(static_cast<int32_t>(word * 64) + std::countr_zero(bits));
    }
  }
}

void LayerSearch::reset(std::span<const double> weights, std::span<const double> speeds,
                        int32_t slots_per_gpu) {
  const bool other_slots =
      slots_per_gpu != slots_per_gpu_ || static_cast<int32_t>(speeds.size()) != gpus_;
  experts_ = static_cast<int32_t>(weights.size());
  gpus_ = static_cast<int32_t>(speeds.size());
  slots_per_gpu_ = slots_per_gpu;
  words_ = (speeds.size() + 63) / 64;
  weight_.assign(weights.begin(), weights.end());
  speed_.assign(speeds.begin(), speeds.end());
  inverse_speed_.resize(speeds.size());
  for (int32_t gpu = 0; gpu < gpus_; ++gpu) inverse_speed_[gpu] = 1 / speeds[gpu];
  if (other_slots) list_subsets();
}

void LayerSearch::descend(double target) {
  // Every step lowers the fullest GPU without making another as full, so it ends by itself; the
  // bound only keeps a long tail of tiny steps short.
  const int32_t most_steps = 8 * gpus_ * slots_per_gpu_;
  const bool many = gpus_ > kFewGpus;  // else to look at all costs little, and finds better
  for (int32_t step = 0; step < most_steps; ++step) {
    const int32_t gpu = fullest();
    if (time(gpu) <= target) return;
    // A replica more or less is too coarse a step next to the target.
    const bool better = (many && exchange_one(gpu, target)) || exchange(gpu, 0, target) ||
                        (kinds_ > 1 && exchange(gpu, 1, target)) ||
                        (time(gpu) > target * kCoarse && replace(gpu));
    if (!better) return;
  }
}

void LayerSearch::attempt(double target, Random& random) {
  saved_ = state_;
  const double before = peak();
  kick_some(random);
  descend(target);
  keep_unless_above(before);
}

bool LayerSearch::attempt_exact(double target, double quantum, Random& random) {
  constexpr double kFar = 1 + 3e-3;  // above that, what descend() leaves is hardly evened out
  RegionState start = state_;
  const double before = peak();
  kick_some(random);
  descend(target);
  const bool even =
      peak() <= target || (peak() <= target * kFar && even_out(target, quantum, random));
  saved_ = std::move(start);
  keep_unless_above(before);
  return even && peak() < before;
}

void LayerSearch::kick_some(Random& random) {
  const int32_t kicks = 1 + random.below(3);
  for (int32_t i = 0; i < kicks; ++i) kick(i == 0 ? fullest() : random.below(gpus_), random);
}

void LayerSearch::attempt_nearby(double target, Random& random) {
  saved_ = state_;
  const double before = peak();
  shuffle(random);
  descend(target);
  keep_unless_above(before);
}

void LayerSearch::scatter(Random& random) {
  for (int32_t i = 0; i < gpus_ * slots_per_gpu_; ++i) kick(random.below(gpus_), random);
  refresh_tokens();
  finish_start();
}

void LayerSearch::keep_unless_above(double peak_before) {
  refresh_tokens();
  if (peak() > peak_before) go_back();
}

void LayerSearch::go_back() {
  std::swap(state_, saved_);
  ordered_ = false;
  for (int32_t gpu = 0; gpu < gpus_; ++gpu) touch(gpu);
}

double LayerSearch::peak() const { return time(fullest()); }

int32_t LayerSearch::fullest() const {
  int32_t fullest = 0;
  double most = -1;
  for (int32_t gpu = 0; gpu < gpus_; ++gpu) {
    if (time(gpu) <= most) continue;
    most = time(gpu);
    fullest = gpu;
  }
  return fullest;
}

int32_t LayerSearch::slot_of(int32_t gpu, int32_t expert) const {
  int32_t slot = gpu * slots_per_gpu_;
  while (state_.expert_at[slot] != expert) ++slot;
  return slot;
}

// ---- Replacement: a slot of an expert with several replicas gets another expert's replica ----

bool LayerSearch::replace(int32_t gpu) {
  Replacement best;
  best.peak = time(gpu) * kProgress;
  for (int32_t expert = 0; expert < experts_; ++expert) {
    if (state_.count[expert] < 2) continue;
    // What losing one replica makes of the fullest two of its GPUs.
    const double rise = weight_[expert] / (state_.count[expert] - 1) - state_.share[expert];
    double most = 0, second = 0;
    int32_t most_gpu = -1;
    for_each_holder(expert, [&](int32_t holder) {
      const double after = (state_.tokens[holder] + rise) * inverse_speed_[holder];
      if (after > most) {
        second = std::exchange(most, after);
        most_gpu = holder;
      } else {
        second = std::max(second, after);
      }
    });
    for_each_holder(expert, [&](int32_t holder) {
      if (holder == gpu) {
        find_replacement_on(gpu, expert, most_gpu == gpu ? second : most, best);
      } else {
        find_replacement_for(gpu, holder, expert, best);
      }
    });
  }
  if (best.slot < 0) return false;
  replace_at(best.slot, best.expert);
  return true;
}

// The fullest GPU itself gives up its replica of `expert` for one of something lighter. `others`:
// what the fullest other holder comes to.
void LayerSearch::find_replacement_on(int32_t gpu, int32_t expert, double others,
                                      Replacement& best) const {
  if (others >= best.peak) return;
  const double without = state_.tokens[gpu] - state_.share[expert];
  for (int32_t next = 0; next < experts_; ++next) {
    if (holds(gpu, next)) continue;
    const double peak = std::max(
        others, (without + weight_[next] / (state_.count[next] + 1)) * inverse_speed_[gpu]);
    if (peak < best.peak) best = {peak, slot_of(gpu, expert), next};
  }
}

// Another GPU gives up its replica of `expert` for one of an expert of the fullest GPU.
void LayerSearch::find_replacement_for(int32_t gpu, int32_t other, int32_t expert,
                                       Replacement& best) const {
  const double rise = weight_[expert] / (state_.count[expert] - 1) - state_.share[expert];
  for (int32_t i = 0; i < slots_per_gpu_; ++i) {
    const int32_t next = state_.expert_at[gpu * slots_per_gpu_ + i];
    if (next == expert || holds(other, next)) continue;
    const double share = weight_[next] / (state_.count[next] + 1);
    const double fall = state_.share[next] - share;
    double peak = (state_.tokens[other] - state_.share[expert] + share) * inverse_speed_[other];
    if (peak >= best.peak) continue;
    const double ours = state_.tokens[gpu] - fall + (holds(gpu, expert) ? rise : 0);
    peak = std::max(peak, ours * inverse_speed_[gpu]);
    for_each_holder(expert, [&](int32_t holder) {
      if (holder == other || holder == gpu) return;
      const double after = state_.tokens[holder] + rise - (holds(holder, next) ? fall : 0);
      peak = std::max(peak, after * inverse_speed_[holder]);
    });
    if (peak < best.peak) best = {peak, slot_of(other, expert), next};
  }
}

void LayerSearch::replace_at(int32_t slot, int32_t expert) {
  const int32_t gpu = slot / slots_per_gpu_;
  const auto recount = [&](int32_t changed, int32_t by) {
    state_.count[changed] += by;
    const double share = weight_[changed] / state_.count[changed];
    for_each_holder(changed, [&](int32_t holder) {
      state_.tokens[holder] += share - state_.share[changed];
      touch(holder);
    });
    state_.share[changed] = share;
    ordered_ = false;
  };
  const int32_t old = state_.expert_at[slot];
  state_.tokens[gpu] -= state_.share[old];
  flip(gpu, old);
  recount(old, -1);
  recount(expert, +1);
  flip(gpu, expert);
  state_.tokens[gpu] += state_.share[expert];
  state_.expert_at[slot] = expert;
  touch(gpu);
}

void LayerSearch::touch(int32_t gpu) {
  for (int32_t kind = 0; kind < kinds_; ++kind) lists_[kind][gpu].fresh = false;
}

void LayerSearch::refresh_tokens() {
  std::fill(state_.tokens.begin(), state_.tokens.end(), 0.0);
  for (int32_t slot = 0; slot < gpus_ * slots_per_gpu_; ++slot) {
    state_.tokens[slot / slots_per_gpu_] += state_.share[state_.expert_at[slot]];
  }
}

// Two random GPUs exchange slots of nearly the same weight: new sums to choose from, little lost.
void LayerSearch::shuffle(Random& random) {
  constexpr double kChange = 3e-5;  // of the peak
  const int32_t kind = kinds_ - 1;
  const int32_t gpu = random.below(gpus_);
  const int32_t other = random.below(gpus_);
  if (gpu == other) return;
  const auto& ours = sums(gpu, kind);
  const auto& theirs = sums(other, kind);
  const auto wanted =
      static_cast<int32_t>(random.between(-kChange, kChange) * state_.tokens[gpu] * scale_);
  nearest_sums(ours, theirs, wanted, {distances_.data(), ours.size()});
  const auto& subsets = subsets_[kind];
  const auto nearest = std::min_element(distances_.begin(), distances_.begin() + subsets.size());
  const auto i = static_cast<size_t>(nearest - distances_.begin());
  for (size_t j = 0; j < subsets.size(); ++j) {
    if (std::abs(ours[i] - theirs[j] - wanted) != *nearest) continue;
    if (may_exchange(gpu, other, subsets[i], subsets[j])) {
      exchange_slots(gpu, other, subsets[i], subsets[j]);
    }
    return;
  }
}

// One random change around a GPU: a replica more of one of its experts (or, where that does not go,
// of any), taken from an expert that has several; or an exchange with another GPU.
void LayerSearch::kick(int32_t gpu, Random& random) {
  constexpr int kTries = 8;
  const int32_t slots = gpus_ * slots_per_gpu_;
  const int32_t slot = gpu * slots_per_gpu_ + random.below(slots_per_gpu_);
  const bool replacing = slots > experts_ && random.below(4) != 0;
  int32_t expert = state_.expert_at[slot];
  for (int i = 0; i < kTries; ++i) {
    if (replacing && i >= kTries / 2) expert = random.below(experts_);
    const int32_t other = random.below(slots);
    const int32_t other_gpu = other / slots_per_gpu_;
    const int32_t other_expert = state_.expert_at[other];
    if (holds(other_gpu, expert)) continue;
    if (replacing && state_.count[other_expert] > 1) return replace_at(other, expert);
    if (!replacing && !holds(gpu, other_expert)) return swap_slots(slot, other);
  }
}

}  // namespace eplbd
