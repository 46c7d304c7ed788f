// Exchanges between two GPUs: as many slots of one for as many of the other, found by what they
// carry together.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/balance/scratch/constants.h"
#include "core/balance/scratch/region_state.h"

namespace eplbd {

class ExchangeSearch {
 public:
  explicit ExchangeSearch(const SearchConstants& constants) : constants_(constants) {}

  // Before the first search in a region, and after it was loaded or placed anew.
  void reset(const RegionState& state);
  // In how many ways two GPUs can exchange the most slots that are tried.
  double ways() const;

  // For a GPU above `target` (tokens / speed): the first exchange found that brings it, or the
  // other GPU, just below the target, and no GPU from below the target to above it. So every step
  // settles a GPU; it may use up its share of the room that is left below the target, and no more.
  // Already carried out; false: none found.
  bool settle(int32_t gpu, double target, RegionState& state);
  // The exchange of at most so many slots that makes the fuller of two GPUs, one of them this, as
  // low as can be, or low enough. Already carried out; false: none makes it lower than this GPU is.
  bool lower(int32_t gpu, double target, int32_t most_slots, RegionState& state);

 private:
  static constexpr int32_t kMostSlots = 4;
  struct Subset {
    int32_t size = 0;
    std::array<int16_t, kMostSlots> places{};  // of slots that can be exchanged

    std::span<const int16_t> used() const { return std::span(places).first(size); }
  };
  // All subsets of one size, by their last place: a GPU that can exchange fewer slots has the first
  // of them.
  struct Kind {
    std::vector<Subset> subsets;
    std::vector<size_t> ending_before;  // [places + 1] subsets whose last place is before it
    size_t padded = 0;                  // subsets.size() as nearest_sums() wants it
    std::vector<int32_t> sums;          // [gpus, padded] what each carries, in fixed point
    std::vector<uint32_t> version;      // [gpus] of the state, when they were added up
  };
  // What the first GPU may give the second, in tokens.
  struct Window {
    double low, high, wanted;
    bool any;  // whatever is between is as welcome as what is wanted
  };
  struct Exchange {
    double given = 0;
    int32_t other = -1;  // GPU; -1: none
    const Subset* ours = nullptr;
    const Subset* theirs = nullptr;
  };

  void list_subsets(int32_t slots_per_gpu);
  std::span<const int32_t> sums(size_t kind, int32_t gpu, const RegionState& state);
  void list_movable(int32_t gpu, const RegionState& state, int32_t* shares);
  int32_t slot_at(int32_t gpu, int32_t place) const {
    return movable_[gpu * slots_per_gpu_ + place];
  }
  double tokens_in(const RegionState& state, int32_t gpu, const Subset& subset) const;
  bool may_take(const RegionState& state, int32_t to, int32_t from, const Subset& subset) const;
  // The allowed exchange nearest to what is wanted.
  Exchange find(size_t kind, int32_t gpu, int32_t other, Window window, const RegionState& state);
  double share_of_room(double target, const RegionState& state) const;
  bool settle_with(size_t kind, int32_t gpu, int32_t other, double target, double share,
                   RegionState& state);
  Exchange find_lowest(size_t kind, int32_t gpu, double target, const RegionState& state);
  void carry_out(int32_t gpu, const Exchange& exchange, RegionState& state) const;

  const SearchConstants& constants_;
  int32_t slots_per_gpu_ = 0;
  double scale_ = 0;              // tokens to fixed point
  std::vector<Kind> kinds_;       // of 1, 2, .. slots
  std::vector<int32_t> movable_;  // [gpus, slots_per_gpu] slots that can be exchanged, by place
  std::vector<int32_t> places_;   // [gpus] how many they are
};

}  // namespace eplbd
