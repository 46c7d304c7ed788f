// How LayerSearch exchanges slots of two GPUs: as many subsets of one as of the other, whose sums
// differ by what is to be given.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <utility>
#include <vector>

#include "core/balance/scratch/layer_search.h"
#include "core/balance/scratch/nearest_sum.h"

namespace eplbd {

// One slot, and the largest subsets of which there are not too many.
void LayerSearch::list_subsets() {
  constexpr size_t kMostSubsets = 128;
  for (auto& subsets : subsets_) subsets.clear();
  kinds_ = 0;
  for (int32_t size = 1; size <= std::clamp(slots_per_gpu_ / 2, 1, kMaxSubset); ++size) {
    std::vector<Subset> subsets;
    Subset subset{size, {}};
    const auto extend = [&](auto& self, int32_t chosen, int32_t from) -> void {
      if (chosen == size) return subsets.push_back(subset);
      for (int32_t slot = from; slot < slots_per_gpu_; ++slot) {
        subset.slots[chosen] = static_cast<int16_t>(slot);
        self(self, chosen + 1, slot + 1);
      }
    };
    extend(extend, 0, 0);
    if (size > 1 && subsets.size() > kMostSubsets) break;
    if (kinds_ == kKinds) {
      subsets_[1] = std::move(subsets_[2]);
    } else {
      ++kinds_;
    }
    subsets_[kinds_ - 1] = std::move(subsets);
  }
  for (int32_t kind = 0; kind < kinds_; ++kind) {
    lists_[kind].resize(static_cast<size_t>(gpus_));
  }
  distances_.resize(std::max({subsets_[0].size(), subsets_[1].size(), subsets_[2].size()}) +
                    kSumLanes);
}

// A replica of the GPU for a lighter one of whichever GPU has room for the difference: found by
// weight, where exchange() tries GPU after GPU.
bool LayerSearch::exchange_one(int32_t gpu, double target) {
  sort_experts();
  const double enough = most_of_the_way(gpu, target);
  double room = 0;
  for (int32_t other = 0; other < gpus_; ++other) {
    room = std::max(room, enough * speed_[other] - state_.tokens[other]);
  }
  const double least = state_.tokens[gpu] - enough * speed_[gpu];
  for (int32_t slot = gpu * slots_per_gpu_; slot < (gpu + 1) * slots_per_gpu_; ++slot) {
    const int32_t expert = state_.expert_at[slot];
    const double share = state_.share[expert];
    const auto first = std::partition_point(order_.begin(), order_.end(), [&](int32_t other) {
      return state_.share[other] > share - least;
    });
    for (auto other = first; other != order_.end(); ++other) {
      const double given = share - state_.share[*other];
      if (given > room) break;
      if (holds(gpu, *other)) continue;
      const int32_t holder = holder_with_room(*other, expert, given, enough);
      if (holder < 0) continue;
      swap_slots(slot, slot_of(holder, *other));
      return true;
    }
  }
  return false;
}

// A GPU that holds `expert` and could have `instead` there, which is heavier by `given`; -1: none.
int32_t LayerSearch::holder_with_room(int32_t expert, int32_t instead, double given,
                                      double enough) const {
  for (size_t word = 0; word < words_; ++word) {
    const uint64_t both = state_.holders[instead * words_ + word];
    for (uint64_t bits = state_.holders[expert * words_ + word] & ~both; bits != 0;
         bits &= bits - 1) {
      const int32_t gpu = static_cast<int32_t>(word * 64) + std::countr_zero(bits);
      if (state_.tokens[gpu] + given <= enough * speed_[gpu]) return gpu;
    }
  }
  return -1;
}

// A step need not be the best there is, while it takes most of the way.
double LayerSearch::most_of_the_way(int32_t gpu, double target) const {
  return target + 0.3 * std::max(0.0, time(gpu) - target);
}

bool LayerSearch::exchange(int32_t gpu, int32_t kind, double target) {
  Exchange best;
  best.peak = time(gpu) * kProgress;
  const auto consider = [&](int32_t other) {
    // What a perfect split of both would give.
    const double even = (state_.tokens[gpu] + state_.tokens[other]) / (speed_[gpu] + speed_[other]);
    if (other == gpu || even >= best.peak) return;
    find_exchange(gpu, other, kind, best);
  };
  // The emptiest first: its outcome rules out most others.
  int32_t emptiest = 0;
  for (int32_t other = 1; other < gpus_; ++other) {
    if (time(other) < time(emptiest)) emptiest = other;
  }
  consider(emptiest);
  const double enough = most_of_the_way(gpu, target);
  for (int32_t other = 0; other < gpus_ && best.peak > enough; ++other) {
    if (other != emptiest) consider(other);
  }
  if (best.gpu < 0) return false;
  exchange_slots(gpu, best.gpu, best.ours, best.theirs);
  return true;
}

void LayerSearch::exchange_slots(int32_t gpu, int32_t other, const Subset& ours,
                                 const Subset& theirs) {
  for (int32_t i = 0; i < ours.size; ++i) {
    swap_slots(gpu * slots_per_gpu_ + ours.slots[i], other * slots_per_gpu_ + theirs.slots[i]);
  }
}

void LayerSearch::find_exchange(int32_t gpu, int32_t other, int32_t kind, Exchange& best) {
  const double tokens = state_.tokens[gpu];
  const double other_tokens = state_.tokens[other];
  const double even =
      (tokens * speed_[other] - other_tokens * speed_[gpu]) / (speed_[gpu] + speed_[other]);
  const auto& ours = sums(gpu, kind);
  const auto& theirs = sums(other, kind);
  const auto wanted = static_cast<int32_t>(even * scale_);
  const size_t subsets = subsets_[kind].size();
  nearest_sums(ours, theirs, wanted, {distances_.data(), ours.size()});
  // What we give may be off `even` by so much for a peak below the best.
  const auto radius = [&] {
    const double off = std::max(even - tokens + best.peak * speed_[gpu],
                                best.peak * speed_[other] - other_tokens - even);
    return static_cast<int32_t>(off * scale_) + 2 * kMaxSubset;
  };
  int32_t near = radius();
  for (size_t i = 0; i < subsets; ++i) {
    if (distances_[i] >= near) continue;
    for (size_t j = 0; j < subsets; ++j) {
      if (std::abs(ours[i] - theirs[j] - wanted) >= near) continue;
      const double given = tokens_in(gpu, subsets_[kind][i]) - tokens_in(other, subsets_[kind][j]);
      const double peak = std::max((tokens - given) * inverse_speed_[gpu],
                                   (other_tokens + given) * inverse_speed_[other]);
      if (peak >= best.peak || !may_exchange(gpu, other, subsets_[kind][i], subsets_[kind][j])) {
        continue;
      }
      best = {peak, other, subsets_[kind][i], subsets_[kind][j]};
      near = radius();
    }
  }
}

double LayerSearch::tokens_in(int32_t gpu, const Subset& subset) const {
  double sum = 0;
  for (int32_t i = 0; i < subset.size; ++i) {
    sum += state_.share[state_.expert_at[gpu * slots_per_gpu_ + subset.slots[i]]];
  }
  return sum;
}

bool LayerSearch::may_exchange(int32_t gpu, int32_t other, const Subset& ours,
                               const Subset& theirs) const {
  for (int32_t i = 0; i < ours.size; ++i) {
    if (holds(other, state_.expert_at[gpu * slots_per_gpu_ + ours.slots[i]])) return false;
    if (holds(gpu, state_.expert_at[other * slots_per_gpu_ + theirs.slots[i]])) return false;
  }
  return true;
}

const std::vector<int32_t>& LayerSearch::sums(int32_t gpu, int32_t kind) {
  SumList& list = lists_[kind][gpu];
  if (list.fresh) return list.sums;
  list.fresh = true;
  const auto& subsets = subsets_[kind];
  list.sums.resize((subsets.size() + kSumLanes - 1) / kSumLanes * kSumLanes, kNoSum);
  std::vector<int32_t>& weights = slot_weights_;
  weights.resize(static_cast<size_t>(slots_per_gpu_));
  for (int32_t slot = 0; slot < slots_per_gpu_; ++slot) {
    weights[slot] =
        static_cast<int32_t>(state_.share[state_.expert_at[gpu * slots_per_gpu_ + slot]] * scale_);
  }
  int32_t* sum = list.sums.data();
  const int32_t size = subsets.front().size;
  const auto extend = [&](auto& self, int32_t chosen, int32_t from, int32_t so_far) -> void {
    if (chosen + 1 == size) {
      for (int32_t slot = from; slot < slots_per_gpu_; ++slot) *sum++ = so_far + weights[slot];
      return;
    }
    for (int32_t slot = from; slot < slots_per_gpu_; ++slot) {
      self(self, chosen + 1, slot + 1, so_far + weights[slot]);
    }
  };
  extend(extend, 0, 0, 0);
  return list.sums;
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

}  // namespace eplbd
