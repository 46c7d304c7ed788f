// How LayerSearch builds its first placement.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <numeric>

#include "core/balance/descending.h"
#include "core/balance/scratch/layer_search.h"

namespace eplbd {

bool LayerSearch::construct(int32_t fewer, double most) {
  fill_water();
  for (int32_t i = 0; i < fewer; ++i) {
    if (!pass_replica_on(most)) return false;
  }
  sort_experts();
  place_in_order();
  return true;
}

void LayerSearch::sort_experts() {
  if (ordered_) return;
  std::sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
    return state_.share[a] != state_.share[b] ? state_.share[a] > state_.share[b] : a < b;
  });
  ordered_ = true;
}

// From the expert whose others then carry least, to the heaviest of those that are light anyway.
// False, where they would carry more than `most`.
bool LayerSearch::pass_replica_on(double most) {
  const double usual =
      std::accumulate(weight_.begin(), weight_.end(), 0.0) / (gpus_ * slots_per_gpu_);
  int32_t from = -1;
  int32_t to = -1;
  double least = most;
  for (int32_t expert = 0; expert < experts_; ++expert) {
    const double weight = weight_[expert];
    const int32_t count = state_.count[expert];
    if (count == 1) {
      if (weight < usual && (to < 0 || weight > weight_[to])) to = expert;
    } else if (weight > usual) {
      const double share = weight / (count - 1);
      if (share > least || (share == least && (from < 0 || weight > weight_[from]))) continue;
      least = share;
      from = expert;
    }
  }
  if (from < 0 || to < 0) return false;
  state_.share[from] = weight_[from] / --state_.count[from];
  state_.share[to] = weight_[to] / ++state_.count[to];
  ordered_ = false;
  return true;
}

void LayerSearch::place_in_order() {
  state_.holders.assign(experts_ * words_, 0);
  state_.tokens.assign(static_cast<size_t>(gpus_), 0.0);
  state_.expert_at.assign(static_cast<size_t>(gpus_) * slots_per_gpu_, -1);
  filled_.assign(static_cast<size_t>(gpus_), 0);
  open_inverse_speed_ = inverse_speed_;
  for (const int32_t expert : order_) {
    for (int32_t i = 0; i < state_.count[expert]; ++i) {
      const int32_t gpu = lightest_with_room(expert);
      put(gpu >= 0 ? gpu : make_room(expert), expert);
    }
  }
  finish_start();
}

// Room above for what a few random changes may add.
void LayerSearch::finish_start() {
  const double most = *std::max_element(state_.tokens.begin(), state_.tokens.end());
  scale_ = most > 0 ? 0x1p26 / most : 0;
  for (int32_t gpu = 0; gpu < gpus_; ++gpu) touch(gpu);
}

void LayerSearch::load(std::span<const int32_t> expert_at) {
  state_.count.assign(static_cast<size_t>(experts_), 0);
  for (const int32_t expert : expert_at) ++state_.count[expert];
  state_.share.resize(static_cast<size_t>(experts_));
  order_.resize(static_cast<size_t>(experts_));
  std::iota(order_.begin(), order_.end(), 0);
  ordered_ = false;
  for (int32_t expert = 0; expert < experts_; ++expert) {
    state_.share[expert] = weight_[expert] / state_.count[expert];
  }
  state_.holders.assign(experts_ * words_, 0);
  state_.tokens.assign(static_cast<size_t>(gpus_), 0.0);
  state_.expert_at.assign(expert_at.size(), -1);
  filled_.assign(static_cast<size_t>(gpus_), 0);
  open_inverse_speed_ = inverse_speed_;
  for (size_t slot = 0; slot < expert_at.size(); ++slot) {
    put(static_cast<int32_t>(slot) / slots_per_gpu_, expert_at[slot]);
  }
  finish_start();
}

// Each spare slot to the expert whose replicas carry most: the least possible load of the heaviest
// replica. An expert has at most one replica a GPU. order_: heaviest replicas first.
void LayerSearch::fill_water() {
  state_.count.assign(static_cast<size_t>(experts_), 1);
  state_.share = weight_;
  shares_.assign(weight_.begin(), weight_.end());
  order_.resize(weight_.size());
  order_descending(shares_, order_);
  // Only experts above the water: those that got a slot, and the next.
  const auto lighter = [&](int32_t a, int32_t b) {
    return state_.share[a] != state_.share[b] ? state_.share[a] < state_.share[b] : a > b;
  };
  above_.clear();
  size_t next = 0;
  for (int32_t spare = gpus_ * slots_per_gpu_ - experts_; spare > 0;) {
    if (next < order_.size() && (above_.empty() || lighter(above_.front(), order_[next]))) {
      above_.push_back(order_[next++]);
      std::push_heap(above_.begin(), above_.end(), lighter);
    }
    std::pop_heap(above_.begin(), above_.end(), lighter);
    const int32_t expert = above_.back();
    if (state_.count[expert] == gpus_) {
      above_.pop_back();
      continue;
    }
    --spare;
    ++state_.count[expert];
    state_.share[expert] = weight_[expert] / state_.count[expert];
    std::push_heap(above_.begin(), above_.end(), lighter);
  }
  const auto heavier = [&](int32_t a, int32_t b) { return lighter(b, a); };
  const auto dry = order_.begin() + static_cast<ptrdiff_t>(next);
  std::sort(order_.begin(), dry, heavier);
  above_.resize(order_.size());
  std::merge(order_.begin(), dry, dry, order_.end(), above_.begin(), heavier);
  std::swap(order_, above_);
  ordered_ = true;
}

// -1: every GPU with room holds the expert already.
int32_t LayerSearch::lightest_with_room(int32_t expert) const {
  const double share = state_.share[expert];
  int32_t lightest = -1;
  double least = std::numeric_limits<double>::infinity();
  if (state_.count[expert] == 1) {  // nobody holds it: without a branch
    for (int32_t gpu = 0; gpu < gpus_; ++gpu) {
      const double after = (state_.tokens[gpu] + share) * open_inverse_speed_[gpu];
      lightest = after < least ? gpu : lightest;
      least = after < least ? after : least;
    }
    return lightest;
  }
  for (int32_t gpu = 0; gpu < gpus_; ++gpu) {
    const double after = (state_.tokens[gpu] + share) * open_inverse_speed_[gpu];
    if (after >= least || holds(gpu, expert)) continue;
    least = after;
    lightest = gpu;
  }
  return lightest;
}

// A full GPU without the expert passes one of its own to a GPU with room that lacks that one.
// There is one: the GPU with room has fewer experts, and this expert has at most one slot a GPU.
int32_t LayerSearch::make_room(int32_t expert) {
  const auto room = static_cast<int32_t>(
      std::find_if(filled_.begin(), filled_.end(), [&](int32_t n) { return n < slots_per_gpu_; }) -
      filled_.begin());
  int32_t passed = -1;
  double least = std::numeric_limits<double>::infinity();
  for (int32_t slot = 0; slot < gpus_ * slots_per_gpu_; ++slot) {
    const int32_t gpu = slot / slots_per_gpu_;
    const int32_t other = state_.expert_at[slot];
    if (other < 0 || holds(gpu, expert) || holds(room, other)) continue;
    const double given = state_.share[other];
    const double peak =
        std::max((state_.tokens[gpu] + state_.share[expert] - given) * inverse_speed_[gpu],
                 (state_.tokens[room] + given) * inverse_speed_[room]);
    if (peak >= least) continue;
    least = peak;
    passed = slot;
  }
  const int32_t gpu = passed / slots_per_gpu_;
  const int32_t other = state_.expert_at[passed];
  flip(gpu, other);
  state_.tokens[gpu] -= state_.share[other];
  state_.expert_at[passed] = state_.expert_at[gpu * slots_per_gpu_ + --filled_[gpu]];
  put(room, other);
  return gpu;
}

void LayerSearch::put(int32_t gpu, int32_t expert) {
  state_.expert_at[gpu * slots_per_gpu_ + filled_[gpu]++] = expert;
  if (filled_[gpu] == slots_per_gpu_) {
    open_inverse_speed_[gpu] = std::numeric_limits<double>::infinity();
  }
  state_.tokens[gpu] += state_.share[expert];
  flip(gpu, expert);
}

}  // namespace eplbd
