// Sums of two items, found by value: what makes an exact exchange cheap to look for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace eplbd {

// All pairs of some items, in buckets by their sum, about one pair a bucket.
class PairSums {
 public:
  struct Pair {
    int32_t sum;
    int16_t first, second;  // items
    int32_t next;           // of the same bucket; -1: none
  };

  // Requires: weights [items] >= 0, sums of two below 2^31; `items` distinct, at least two.
  void build(std::span<const int32_t> weights, std::span<const int16_t> items);

  // Visits pairs with low <= sum <= high until one visit returns true, and then does too.
  template <typename Visit>
  bool any_between(int32_t low, int32_t high, Visit visit) const {
    if (high < least_ || low > most_) return false;
    const uint32_t end = bucket(std::min(high, most_));
    for (uint32_t at = bucket(std::max(low, least_)); at <= end; ++at) {
      for (int32_t i = first_of_[at]; i >= 0; i = pairs_[i].next) {
        if (pairs_[i].sum >= low && pairs_[i].sum <= high && visit(pairs_[i])) return true;
      }
    }
    return false;
  }

  // A first look for windows of one width: false when no pair is in one. By value, so that a loop
  // keeps it in registers.
  class Probe {
   public:
    Probe(const PairSums& pairs, int32_t width)
        : taken_(pairs.taken_.data()),
          least_(pairs.least_),
          shift_(pairs.shift_ - kFiner),
          last_(static_cast<uint32_t>(pairs.most_ - pairs.least_) >> shift_),
          reached_((2U << std::min((width >> shift_) + 1, 30)) - 1) {}
    bool may_hold(int32_t low) const {
      const uint32_t from = static_cast<uint32_t>(low - least_) >> shift_;
      // What is below the least wraps around; only any_between() can tell then.
      if (from > last_) return low < least_;
      uint32_t taken;
      std::memcpy(&taken, taken_ + from / 8, sizeof(taken));
      return (taken >> (from % 8) & reached_) != 0 || reached_ >> 24 != 0;
    }

   private:
    const uint8_t* taken_;
    int32_t least_;
    int shift_;
    uint32_t last_;
    uint32_t reached_;  // a bit for each step, from its first, that a window may reach into
  };

 private:
  static constexpr int kFiner = 4;

  uint32_t bucket(int32_t sum) const { return static_cast<uint32_t>(sum - least_) >> shift_; }

  int32_t least_ = 0, most_ = 0;
  int shift_ = 0;
  std::vector<int32_t> first_of_;  // [buckets] a pair; -1: none
  std::vector<Pair> pairs_;
  std::vector<uint8_t> taken_;  // a bit for each sixteenth of a bucket: there is a pair
};

}  // namespace eplbd
