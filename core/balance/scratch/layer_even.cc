// How LayerSearch evens GPUs out to a few millionths. The fullest GPU gives up one, two or three of
// its slots for as many of the GPUs that are still open, so that it comes to lie just below the
// target; then it is closed, and the next one is the fullest of those still open. The last two
// share what is left of the room below the target: one exchange between them, of all that there
// are, must fit into it.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>

#include "core/balance/scratch/layer_search.h"

namespace eplbd {
namespace {

// Pairs of more items find more, but cost their square to list.
constexpr int32_t kPairedItems = 48;
constexpr int32_t kMostLookups = 9000;
constexpr int32_t kLookupsOfAPair = 500;
constexpr int32_t kLookupsOfAGpu = 10;
// In a narrower window (the fullest GPU is 2^26) single slots are too coarse.
constexpr int32_t kWide = 1 << 13;
// What fixed point may be off, for all slots of a GPU.
constexpr int32_t kRounding = 8;
constexpr double kSame = 1 + 1e-9;

}  // namespace

bool LayerSearch::even_out(double target, double quantum, Random& random) {
  Evening& e = evening_;
  const auto slots = static_cast<int32_t>(state_.expert_at.size());
  e.weight.resize(slots);
  e.slot_of.resize(slots);
  e.item_at.resize(slots);
  for (int32_t slot = 0; slot < slots; ++slot) {
    e.slot_of[slot] = e.item_at[slot] = slot;
    e.weight[slot] = static_cast<int32_t>(state_.share[state_.expert_at[slot]] * scale_ + 0.5);
  }
  e.open.assign(static_cast<size_t>(gpus_), 1);
  e.lookups = kMostLookups;
  e.quantum = quantum;
  e.target = target;
  if (quantum > 0) {
    saved_ = state_;
    settle_fractions(random);
  }
  const bool even = even_rest(gpus_);
  if (!even && quantum > 0) go_back();
  refresh_tokens();
  return even;
}

double LayerSearch::excess(int32_t gpu) const {
  return state_.tokens[gpu] - evening_.target * speed_[gpu];
}

// `open`: how many GPUs are. False: nothing has changed.
bool LayerSearch::even_rest(int32_t open) {
  Evening& e = evening_;
  int32_t gpu = -1;
  int32_t other = -1;
  for (int32_t g = 0; g < gpus_; ++g) {
    if (!e.open[g]) continue;
    other = g;
    if (gpu < 0 || time(g) > time(gpu)) std::swap(gpu, other);
  }
  if (time(gpu) <= e.target * kSame) return true;
  const double room = open_room();
  if (open == 1 || room < 0 || (e.lookups -= kLookupsOfAGpu) < 0) return false;
  if (open == 2) return even_pair(gpu, other);
  // What it must give: all it has above the target, and no more than its part of the room.
  const double give = excess(gpu) + unused(gpu);
  const double may_give = std::min((give + room / (open - 1)) * scale_, 0x1p28);
  const bool whole = e.quantum > 0;  // it may come to lie exactly at the target then, or not at all
  const auto least = static_cast<int32_t>(give * scale_) + (whole ? -kRounding : kRounding);
  const auto most = static_cast<int32_t>(may_give) + (whole ? kRounding : 0);

  e.open[gpu] = 0;
  const auto rest = [&](std::span<int32_t> ours, std::span<int32_t> theirs) {
    if (e.lookups < 0 || !may_exchange_items(gpu, ours, theirs)) return false;
    for (size_t i = 0; i < ours.size(); ++i) exchange_items(ours[i], theirs[i]);
    if (time(gpu) <= e.target * kSame && even_rest(open - 1)) return true;
    for (size_t i = ours.size(); i-- > 0;) exchange_items(ours[i], theirs[i]);
    return false;
  };
  // Pairs serve until half of the GPUs are closed: which items there are, not where they lie,
  // counts.
  auto& [pairs, listed] = e.pairs[std::bit_width(static_cast<uint32_t>(open - 1))];
  if (open == gpus_ || std::has_single_bit(static_cast<uint32_t>(open))) listed = false;
  if (most - least > kWide && give_one(gpu, least, most, rest)) return true;
  if (slots_per_gpu_ > 1) {
    if (!listed) list_pairs(open - 1, pairs);
    listed = true;
    if (give_two(gpu, least, most, pairs, rest)) return true;
    if (give_three(gpu, least, most, pairs, rest)) return true;
  }
  e.open[gpu] = 1;
  return false;
}

// Of all exchanges between the last two the best.
bool LayerSearch::even_pair(int32_t gpu, int32_t other) {
  evening_.lookups -= kLookupsOfAPair;
  Exchange best;
  best.peak = evening_.target * kSame;
  for (int32_t kind = 0; kind < kinds_ && best.gpu < 0; ++kind) {
    find_exchange(gpu, other, kind, best);
  }
  if (best.gpu < 0) return false;
  exchange_slots(gpu, other, best.ours, best.theirs);
  return true;
}

// Pairs of items of all open GPUs, as many of each.
void LayerSearch::list_pairs(int32_t open, PairSums& pairs) {
  Evening& e = evening_;
  const int32_t each = std::min(slots_per_gpu_, std::max(1, kPairedItems / open));
  e.paired.clear();
  for (int32_t gpu = 0; gpu < gpus_ && static_cast<int32_t>(e.paired.size()) < kPairedItems;
       ++gpu) {
    if (!e.open[gpu]) continue;
    for (int32_t i = 0; i < each; ++i) {
      const int32_t slot = (gpu + 1) * slots_per_gpu_ - 1 - i;
      e.paired.push_back(static_cast<int16_t>(e.item_at[slot]));
    }
  }
  pairs.build(e.weight, e.paired);
}

template <typename Rest>
bool LayerSearch::give_one(int32_t gpu, int32_t least, int32_t most, Rest rest) {
  Evening& e = evening_;
  for (int32_t i = 0; i < slots_per_gpu_; ++i) {
    int32_t mine = e.item_at[gpu * slots_per_gpu_ + i];
    for (int32_t item = 0; item < static_cast<int32_t>(e.weight.size()); ++item) {
      const int32_t given = e.weight[mine] - e.weight[item];
      if (given < least || given > most || !on_open(item)) continue;
      int32_t theirs = item;
      if (rest({&mine, 1}, {&theirs, 1})) return true;
    }
  }
  return false;
}

template <typename Rest>
bool LayerSearch::give_two(int32_t gpu, int32_t least, int32_t most, const PairSums& pairs,
                           Rest rest) {
  Evening& e = evening_;
  const int32_t* const items = &e.item_at[gpu * slots_per_gpu_];
  for (int32_t i = 1; i < slots_per_gpu_; ++i) {
    for (int32_t j = 0; j < i; ++j) {
      const int32_t sum = e.weight[items[i]] + e.weight[items[j]];
      const bool found = pairs.any_between(sum - most, sum - least, [&](const auto& pair) {
        if (!on_open(pair.first) || !on_open(pair.second)) return false;
        int32_t ours[] = {items[i], items[j]};
        int32_t theirs[] = {pair.first, pair.second};
        return rest(ours, theirs);
      });
      if (found) return true;
    }
  }
  return false;
}

template <typename Rest>
bool LayerSearch::give_three(int32_t gpu, int32_t least, int32_t most, const PairSums& pairs,
                             Rest rest) {
  struct Triple {
    int32_t sum;
    int32_t items[3];
  };
  Evening& e = evening_;
  std::vector<Triple> triples;
  const auto mine = std::span(e.item_at).subspan(static_cast<size_t>(gpu) * slots_per_gpu_,
                                                 static_cast<size_t>(slots_per_gpu_));
  for (size_t i = 2; i < mine.size(); ++i) {
    for (size_t j = 1; j < i; ++j) {
      const int32_t two = e.weight[mine[i]] + e.weight[mine[j]];
      for (size_t k = 0; k < j; ++k) {
        triples.push_back({two + e.weight[mine[k]], {mine[i], mine[j], mine[k]}});
      }
    }
  }
  const PairSums::Probe probe(pairs, most - least);
  const auto give = [&](Triple ours, int32_t low, int32_t item) {
    return pairs.any_between(low, low + most - least, [&](const auto& pair) {
      // Else it was looked at before.
      if (pair.first <= item || pair.second <= item) return false;
      if (!on_open(pair.first) || !on_open(pair.second)) return false;
      int32_t theirs[] = {pair.first, pair.second, item};
      return rest(ours.items, theirs);
    });
  };
  for (int32_t item = 0; item < static_cast<int32_t>(e.weight.size()); ++item) {
    if (!on_open(item)) continue;
    if (e.lookups < 0) return false;
    e.lookups -= static_cast<int32_t>(triples.size());
    const int32_t beyond = e.weight[item] + most;
    for (const Triple& triple : triples) {
      const int32_t low = triple.sum - beyond;
      if (probe.may_hold(low) && give(triple, low, item)) return true;
    }
  }
  return false;
}

bool LayerSearch::on_open(int32_t item) const {
  return evening_.open[evening_.slot_of[item] / slots_per_gpu_] != 0;
}

// The heaviest for the heaviest, where no expert comes twice to a GPU by it.
bool LayerSearch::may_exchange_items(int32_t gpu, std::span<int32_t> ours,
                                     std::span<int32_t> theirs) const {
  const Evening& e = evening_;
  const auto heavier = [&](int32_t a, int32_t b) { return e.weight[a] > e.weight[b]; };
  std::sort(ours.begin(), ours.end(), heavier);
  std::sort(theirs.begin(), theirs.end(), heavier);
  for (size_t i = 0; i < ours.size(); ++i) {
    const int32_t slot = e.slot_of[theirs[i]];
    const int32_t expert = state_.expert_at[slot];
    if (holds(gpu, expert)) return false;
    if (holds(slot / slots_per_gpu_, state_.expert_at[e.slot_of[ours[i]]])) return false;
    for (size_t j = 0; j < i; ++j) {
      if (state_.expert_at[e.slot_of[theirs[j]]] == expert) return false;
    }
  }
  return true;
}

void LayerSearch::exchange_items(int32_t item, int32_t other) {
  Evening& e = evening_;
  swap_slots(e.slot_of[item], e.slot_of[other]);
  std::swap(e.item_at[e.slot_of[item]], e.item_at[e.slot_of[other]]);
  std::swap(e.slot_of[item], e.slot_of[other]);
}

}  // namespace eplbd
