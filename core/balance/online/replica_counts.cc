// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/replica_counts.h"

#include <algorithm>
#include <functional>

namespace eplbd {
namespace {

// A soft maximum sees further, a hard one ends closer.
constexpr int kSoft = 4;
constexpr int kHard = 7;
// Givers are those that would carry least with a replica fewer.
constexpr size_t kMostGivers = 32;
// Where the packing is only bounded, what it says of the heavier ones is not to be believed: on 64
// GPUs with five slots each 32 of them cost 0.001 of balancedness and a tenth more moves.
constexpr size_t kMostGiversOfABound = 8;
constexpr size_t kMostTakers = 4;
constexpr size_t kLanes = 8;  // numbers that are raised side by side

}  // namespace

void ReplicaCounts::start(std::span<const float> loads, std::span<const int32_t> counts,
                          std::span<const float> speeds, int32_t slots_per_gpu) {
  gpus_ = speeds.size();
  slots_per_gpu_ = static_cast<size_t>(slots_per_gpu);
  loads_.assign(loads.begin(), loads.end());
  counts_.assign(counts.begin(), counts.end());
  inverse_.clear();
  float sum = 0;
  for (const float speed : speeds) {
    sum = slots_per_gpu_ == 2 ? speed : sum + speed;
    inverse_.push_back(1 / sum);
  }
  shares_.clear();
  for (size_t expert = 0; expert < loads_.size(); ++expert) {
    shares_.insert(shares_.end(), static_cast<size_t>(counts_[expert]),
                   share(static_cast<int32_t>(expert)));
  }
  std::sort(shares_.begin(), shares_.end(), std::greater<>());
  packed_.assign((gpus_ + kLanes - 1) / kLanes * kLanes, 0.0F);
  harden(kSoft);
}

float ReplicaCounts::peak() const { return *std::max_element(packed_.begin(), packed_.end()); }

void ReplicaCounts::harden(int doublings) {
  doublings_ = doublings;
  pack();
  unit_ = peak() > 0 ? 1 / peak() : 0;
  powers_ = pack();
}

std::optional<Recount> ReplicaCounts::improve(float least) {
  auto best = find(least);
  if (!best && doublings_ == kSoft) {
    harden(kHard);
    best = find(least);
  }
  return best;
}

std::optional<Recount> ReplicaCounts::find(float least) {
  find_givers();
  find_takers();
  std::optional<Recount> best;
  float powers = powers_ * (1 - static_cast<float>(1 << doublings_) * least);
  for (const int32_t to : takers_) {
    change(to, +1);
    for (const int32_t from : givers_) {
      if (from == to) continue;
      change(from, -1);
      if (const float after = pack(); after < powers) {
        powers = after;
        best = Recount{from, to};
      }
      change(from, +1);
    }
    change(to, -1);
  }
  if (best) {
    change(best->to, +1);
    change(best->from, -1);
  }
  powers_ = pack();
  return best;
}

void ReplicaCounts::find_givers() {
  givers_.clear();
  for (size_t expert = 0; expert < loads_.size(); ++expert) {
    if (counts_[expert] > 1) givers_.push_back(static_cast<int32_t>(expert));
  }
  const auto after = [&](int32_t expert) {
    return loads_[expert] / static_cast<float>(counts_[expert] - 1);
  };
  const size_t most = slots_per_gpu_ == 2 ? kMostGivers : kMostGiversOfABound;
  const auto end = givers_.begin() + static_cast<ptrdiff_t>(std::min(givers_.size(), most));
  std::partial_sort(givers_.begin(), end, givers_.end(), [&](int32_t a, int32_t b) {
    return after(a) != after(b) ? after(a) < after(b) : a < b;
  });
  givers_.erase(end, givers_.end());
}

// The heaviest of all, and what fills the fullest GPU.
void ReplicaCounts::find_takers() {
  const auto fullest =
      static_cast<size_t>(std::max_element(packed_.begin(), packed_.end()) - packed_.begin());
  const float heavy[] = {shares_.front(), shares_[fullest], shares_[shares_.size() - 1 - fullest]};
  takers_.clear();
  for (int32_t expert = 0; expert < static_cast<int32_t>(loads_.size()); ++expert) {
    if (counts_[expert] == static_cast<int32_t>(gpus_)) continue;
    if (std::find(std::begin(heavy), std::end(heavy), share(expert)) == std::end(heavy)) continue;
    takers_.push_back(expert);
    if (takers_.size() == kMostTakers) return;
  }
}

void ReplicaCounts::change(int32_t expert, int32_t by) {
  const auto place_of = [&](float share) {
    return std::lower_bound(shares_.begin(), shares_.end(), share, std::greater<>());
  };
  const auto first = place_of(share(expert));
  shares_.erase(first, first + counts_[expert]);
  counts_[expert] += by;
  shares_.insert(place_of(share(expert)), static_cast<size_t>(counts_[expert]), share(expert));
}

// Returns the sum of powers. In one order, but not one after the other: additions wait for each
// other.
float ReplicaCounts::pack() {
  const float* const last = shares_.data() + shares_.size() - 1;
  if (slots_per_gpu_ == 2) {
    for (size_t i = 0; i < gpus_; ++i) {
      packed_[i] = (shares_[i] + *(last - i)) * inverse_[i];
    }
  } else {
    float tokens = 0;
    const float* light = last;
    for (size_t i = 0; i < gpus_; ++i) {
      float added = shares_[i];
      for (size_t k = 1; k < slots_per_gpu_; ++k) added += *light--;
      tokens += added;
      packed_[i] = tokens * inverse_[i];
    }
  }
  float sums[kLanes] = {};
  for (size_t i = 0; i < packed_.size(); i += kLanes) {
    float x[kLanes];
    for (size_t k = 0; k < kLanes; ++k) x[k] = packed_[i + k] * unit_;
    for (int d = 0; d < doublings_; ++d) {
      for (size_t k = 0; k < kLanes; ++k) x[k] *= x[k];
    }
    for (size_t k = 0; k < kLanes; ++k) sums[k] += x[k];
  }
  float sum = 0;
  for (const float one : sums) sum += one;
  return sum;
}

}  // namespace eplbd
