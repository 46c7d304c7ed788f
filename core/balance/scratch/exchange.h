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
  // other GPU, between the mean and the target, and no GPU from below the target to above it. So
  // every step settles a GPU, and none uses up the room that the others need. Already carried out;
  // false: none found.
  bool settle(int32_t gpu, double target, RegionState& state);
  // The exchange of at most so many slots that makes the fuller of two GPUs, one of them this, as
  // low as can be, or low enough. Already carried out; false: none makes it lower than this GPU is.
  bool lower(int32_t gpu, double target, int32_t most_slots, RegionState& state);

 private:
  static constexpr int32_t kMostSlots = 4;
  struct Subset {
    int32_t size = 0;
    std::array<int16_t, kMostSlots> slots{};  // within a GPU

    std::span<const int16_t> used() const { return std::span(slots).first(size); }
  };
  // All subsets of one size, and what each carries.
  struct Kind {
    std::vector<Subset> subsets;
    size_t padded = 0;              // subsets.size() as nearest_sums() wants it
    std::vector<int32_t> sums;      // [gpus, padded] in fixed point
    std::vector<uint32_t> version;  // [gpus] of the state, when they were added up
  };
  // What the first GPU may give the second, in tokens.
  struct Window {
    double low, high, wanted;
  };
  struct Exchange {
    double given = 0;
    int32_t other = -1;  // GPU; -1: none
    const Subset* ours = nullptr;
    const Subset* theirs = nullptr;
  };

  void list_subsets(int32_t slots_per_gpu);
  std::span<const int32_t> sums(Kind& kind, int32_t gpu, const RegionState& state);
  // The allowed exchange nearest to what is wanted.
  Exchange find(Kind& kind, int32_t gpu, int32_t other, Window window, const RegionState& state);
  bool settle_with(Kind& kind, int32_t gpu, int32_t other, double target, RegionState& state);
  Exchange find_lowest(Kind& kind, int32_t gpu, double target, const RegionState& state);
  void carry_out(int32_t gpu, const Exchange& exchange, RegionState& state) const;

  const SearchConstants& constants_;
  int32_t slots_per_gpu_ = 0;
  double scale_ = 0;         // tokens to fixed point
  std::vector<Kind> kinds_;  // by size
  std::vector<int32_t> distances_, shares_;
};

}  // namespace eplbd
