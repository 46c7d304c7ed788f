// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/start.h"

#include <algorithm>
#include <cassert>
#include <limits>

#include "core/balance/descending.h"

namespace eplbd {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

}  // namespace

void Start::count_by_water(const RegionState& state, std::vector<int32_t>& counts) {
  counts.assign(state.weight.size(), 1);
  shares_.assign(state.weight.begin(), state.weight.end());
  order_.resize(state.weight.size());
  order_descending(shares_, order_);
  // Only experts above the water: those that got a slot, and the next.
  const auto share = [&](int32_t expert) { return state.weight[expert] / counts[expert]; };
  size_t above = 0;
  for (int32_t spare = state.slots() - state.experts; spare > 0; --spare) {
    int32_t heaviest = -1;
    for (size_t i = 0; i < above; ++i) {
      const int32_t expert = order_[i];
      if (counts[expert] == state.gpus) continue;
      if (heaviest < 0 || share(expert) > share(heaviest)) heaviest = expert;
    }
    if (above < order_.size() && (heaviest < 0 || share(order_[above]) > share(heaviest))) {
      heaviest = order_[above++];
    }
    ++counts[heaviest];
  }
}

bool Start::pass_replica_on(const RegionState& state, std::vector<int32_t>& counts) const {
  const double usual = state.mean / state.slots_per_gpu;
  int32_t from = -1;
  int32_t to = -1;
  double least = state.mean;
  for (int32_t expert = 0; expert < state.experts; ++expert) {
    const double weight = state.weight[expert];
    if (counts[expert] == 1) {
      if (weight < usual && (to < 0 || weight > state.weight[to])) to = expert;
    } else if (weight > usual && weight / (counts[expert] - 1) < least) {
      least = weight / (counts[expert] - 1);
      from = expert;
    }
  }
  if (from < 0 || to < 0) return false;
  --counts[from];
  ++counts[to];
  return true;
}

void Start::place(std::span<const int32_t> counts, RegionState& state) {
  state.clear(counts);
  filled_.assign(static_cast<size_t>(state.gpus), 0);
  open_ = state.inverse_speed;
  shares_.assign(state.share.begin(), state.share.end());
  order_.resize(state.share.size());
  order_descending(shares_, order_);
  for (const int32_t expert : order_) {
    for (int32_t i = 0; i < state.count[expert]; ++i) {
      const int32_t gpu = lightest_with_room(state, expert);
      put(state, gpu >= 0 ? gpu : make_room(state, expert), expert);
    }
  }
}

// -1: every GPU with room holds the expert already.
int32_t Start::lightest_with_room(const RegionState& state, int32_t expert) const {
  const double share = state.share[expert];
  int32_t lightest = -1;
  double least = kInfinite;
  if (state.count[expert] == 1) {  // nobody holds it: without a branch
    for (int32_t gpu = 0; gpu < state.gpus; ++gpu) {
      const double after = (state.tokens[gpu] + share) * open_[gpu];
      lightest = after < least ? gpu : lightest;
      least = after < least ? after : least;
    }
    return lightest;
  }
  for (int32_t gpu = 0; gpu < state.gpus; ++gpu) {
    const double after = (state.tokens[gpu] + share) * open_[gpu];
    if (after >= least || state.holds(gpu, expert)) continue;
    least = after;
    lightest = gpu;
  }
  return lightest;
}

// A full GPU without the expert passes one of its own to a GPU with room that lacks that one.
// There is one: the GPU with room has fewer experts, and this expert has at most one slot a GPU.
int32_t Start::make_room(RegionState& state, int32_t expert) {
  const auto not_full = std::find_if(filled_.begin(), filled_.end(),
                                     [&](int32_t n) { return n < state.slots_per_gpu; });
  const auto room = static_cast<int32_t>(not_full - filled_.begin());
  int32_t passed = -1;
  double least = kInfinite;
  for (int32_t slot = 0; slot < state.slots(); ++slot) {
    const int32_t gpu = state.gpu_of(slot);
    const int32_t other = state.expert_at[slot];
    if (other < 0 || state.holds(gpu, expert) || state.holds(room, other)) continue;
    const double given = state.share[other];
    const double peak =
        std::max((state.tokens[gpu] + state.share[expert] - given) * state.inverse_speed[gpu],
                 (state.tokens[room] + given) * state.inverse_speed[room]);
    if (peak >= least) continue;
    least = peak;
    passed = slot;
  }
  assert(passed >= 0);
  const int32_t gpu = state.gpu_of(passed);
  const int32_t other = state.expert_at[passed];
  const int32_t last = gpu * state.slots_per_gpu + --filled_[gpu];
  const int32_t last_expert = state.expert_at[last];
  state.take(gpu, passed);
  if (last != passed) {
    state.take(gpu, last);
    state.put(gpu, passed, last_expert);
  }
  put(state, room, other);
  return gpu;
}

void Start::put(RegionState& state, int32_t gpu, int32_t expert) {
  state.put(gpu, gpu * state.slots_per_gpu + filled_[gpu], expert);
  open_[gpu] = ++filled_[gpu] == state.slots_per_gpu ? kInfinite : state.inverse_speed[gpu];
}

}  // namespace eplbd
