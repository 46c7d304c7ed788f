// SPDX-License-Identifier: Apache-2.0
#include "core/layer_search.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace eplbd {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// A change must lower the peak by more than rounding.
constexpr double kProgress = 1 - 1e-10;

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
  experts_ = static_cast<int32_t>(weights.size());
  gpus_ = static_cast<int32_t>(speeds.size());
  slots_per_gpu_ = slots_per_gpu;
  words_ = (speeds.size() + 63) / 64;
  weight_.assign(weights.begin(), weights.end());
  speed_.assign(speeds.begin(), speeds.end());
  inverse_speed_.resize(speeds.size());
  for (int32_t gpu = 0; gpu < gpus_; ++gpu) inverse_speed_[gpu] = 1 / speeds[gpu];
  largest_subset_ = std::min(kMaxSubset, slots_per_gpu / 2);
  for (int32_t size = 2; size <= largest_subset_; ++size) lists_[size].resize(speeds.size());
}

void LayerSearch::descend(double target) {
  // Every step lowers the fullest GPU without making another as full, so it ends by itself; the
  // bound only keeps a long tail of tiny steps short.
  const int32_t most_steps = 8 * gpus_ * slots_per_gpu_;
  for (int32_t step = 0; step < most_steps; ++step) {
    const int32_t gpu = fullest();
    if (time(gpu) <= target) return;
    bool better = exchange(gpu, 1, target) || replace(gpu);
    for (int32_t size = 2; !better && size <= largest_subset_; ++size) {
      better = exchange(gpu, size, target);
    }
    if (!better) return;
  }
}

void LayerSearch::attempt(double target, Random& random) {
  saved_ = state_;
  const double before = peak();
  const int32_t kicks = 1 + random.below(3);
  for (int32_t i = 0; i < kicks; ++i) kick(i == 0 ? fullest() : random.below(gpus_), random);
  descend(target);
  refresh_tokens();
  if (peak() <= before) return;
  std::swap(state_, saved_);
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

// ---- Exchange: as many slots of the fullest GPU for as many of another ----

bool LayerSearch::exchange(int32_t gpu, int32_t size, double target) {
  Exchange best;
  best.peak = time(gpu) * kProgress;
  const auto consider = [&](int32_t other) {
    // What a perfect split of both would give.
    const double even = (state_.tokens[gpu] + state_.tokens[other]) / (speed_[gpu] + speed_[other]);
    if (other == gpu || even >= best.peak) return;
    if (size == 1) {
      find_exchange_of_one(gpu, other, best);
    } else {
      find_exchange(gpu, other, size, best);
    }
  };
  // The emptiest first: its outcome rules out most others.
  int32_t emptiest = 0;
  for (int32_t other = 1; other < gpus_; ++other) {
    if (time(other) < time(emptiest)) emptiest = other;
  }
  consider(emptiest);
  for (int32_t other = 0; other < gpus_ && best.peak > target; ++other) {
    if (other != emptiest) consider(other);
  }
  if (best.gpu < 0) return false;
  for (int32_t i = 0; i < size; ++i) {
    swap_slots(gpu * slots_per_gpu_ + best.ours.slots[i],
               best.gpu * slots_per_gpu_ + best.theirs.slots[i]);
  }
  return true;
}

void LayerSearch::find_exchange_of_one(int32_t gpu, int32_t other, Exchange& best) const {
  const int32_t* ours = &state_.expert_at[gpu * slots_per_gpu_];
  const int32_t* theirs = &state_.expert_at[other * slots_per_gpu_];
  for (int32_t i = 0; i < slots_per_gpu_; ++i) {
    if (holds(other, ours[i])) continue;
    const double share = state_.share[ours[i]];
    for (int32_t j = 0; j < slots_per_gpu_; ++j) {
      const double given = share - state_.share[theirs[j]];
      const double peak = std::max((state_.tokens[gpu] - given) * inverse_speed_[gpu],
                                   (state_.tokens[other] + given) * inverse_speed_[other]);
      if (peak >= best.peak || holds(gpu, theirs[j])) continue;
      best = {peak, other, 1, {}, {}};
      best.ours.slots[0] = static_cast<int16_t>(i);
      best.theirs.slots[0] = static_cast<int16_t>(j);
    }
  }
}

// Both lists ascend, so that one pass finds for each of our sums the two of theirs next to what
// would split the load evenly.
void LayerSearch::find_exchange(int32_t gpu, int32_t other, int32_t size, Exchange& best) {
  const double even = (state_.tokens[gpu] * speed_[other] - state_.tokens[other] * speed_[gpu]) /
                      (speed_[gpu] + speed_[other]);
  const auto& theirs = subsets(other, size);
  size_t j = 0;
  for (const Subset& ours : subsets(gpu, size)) {
    while (j < theirs.size() && theirs[j].sum < ours.sum - even) ++j;
    for (size_t k = j > 0 ? j - 1 : 0; k < std::min(j + 1, theirs.size()); ++k) {
      const double given = ours.sum - theirs[k].sum;
      const double peak = std::max((state_.tokens[gpu] - given) * inverse_speed_[gpu],
                                   (state_.tokens[other] + given) * inverse_speed_[other]);
      if (peak >= best.peak || !may_exchange(gpu, other, size, ours, theirs[k])) continue;
      best = {peak, other, size, ours, theirs[k]};
    }
  }
}

bool LayerSearch::may_exchange(int32_t gpu, int32_t other, int32_t size, const Subset& ours,
                               const Subset& theirs) const {
  for (int32_t i = 0; i < size; ++i) {
    if (holds(other, state_.expert_at[gpu * slots_per_gpu_ + ours.slots[i]])) return false;
    if (holds(gpu, state_.expert_at[other * slots_per_gpu_ + theirs.slots[i]])) return false;
  }
  return true;
}

const std::vector<LayerSearch::Subset>& LayerSearch::subsets(int32_t gpu, int32_t size) {
  SubsetList& list = lists_[size][gpu];
  if (list.fresh) return list.subsets;
  list.fresh = true;
  list.subsets.clear();
  const int32_t* experts = &state_.expert_at[gpu * slots_per_gpu_];
  for (int32_t i = 0; i < slots_per_gpu_; ++i) {
    for (int32_t j = 0; j < i; ++j) {
      const double two = state_.share[experts[i]] + state_.share[experts[j]];
      if (size == 2) {
        list.subsets.push_back({two, {static_cast<int16_t>(i), static_cast<int16_t>(j)}});
        continue;
      }
      for (int32_t k = 0; k < j; ++k) {
        list.subsets.push_back(
            {two + state_.share[experts[k]],
             {static_cast<int16_t>(i), static_cast<int16_t>(j), static_cast<int16_t>(k)}});
      }
    }
  }
  std::sort(list.subsets.begin(), list.subsets.end(),
            [](const Subset& a, const Subset& b) { return a.sum < b.sum; });
  return list.subsets;
}

void LayerSearch::swap_slots(int32_t slot, int32_t other) {
  const int32_t gpu = slot / slots_per_gpu_;
  const int32_t other_gpu = other / slots_per_gpu_;
  const int32_t expert = state_.expert_at[slot];
  const int32_t other_expert = state_.expert_at[other];
  const double given = state_.share[expert] - state_.share[other_expert];
  state_.tokens[gpu] -= given;
  state_.tokens[other_gpu] += given;
  for (const int32_t moved : {expert, other_expert}) {
    flip(gpu, moved);
    flip(other_gpu, moved);
  }
  std::swap(state_.expert_at[slot], state_.expert_at[other]);
  touch(gpu);
  touch(other_gpu);
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
  for (int32_t size = 2; size <= largest_subset_; ++size) lists_[size][gpu].fresh = false;
}

void LayerSearch::refresh_tokens() {
  std::fill(state_.tokens.begin(), state_.tokens.end(), 0.0);
  for (int32_t slot = 0; slot < gpus_ * slots_per_gpu_; ++slot) {
    state_.tokens[slot / slots_per_gpu_] += state_.share[state_.expert_at[slot]];
  }
}

// One random change around a GPU: a replica more of one of its experts, taken from an expert that
// has several, or an exchange with another GPU.
void LayerSearch::kick(int32_t gpu, Random& random) {
  constexpr int kTries = 8;
  const int32_t slots = gpus_ * slots_per_gpu_;
  const int32_t slot = gpu * slots_per_gpu_ + random.below(slots_per_gpu_);
  const int32_t expert = state_.expert_at[slot];
  const bool replacing = slots > experts_ && random.below(4) != 0;
  for (int i = 0; i < kTries; ++i) {
    const int32_t other = random.below(slots);
    const int32_t other_gpu = other / slots_per_gpu_;
    const int32_t other_expert = state_.expert_at[other];
    if (other_gpu == gpu || holds(other_gpu, expert)) continue;
    if (replacing && state_.count[other_expert] > 1) {
      return replace_at(other, expert);
    }
    if (!replacing && !holds(gpu, other_expert)) {
      return swap_slots(slot, other);
    }
  }
}

}  // namespace eplbd
