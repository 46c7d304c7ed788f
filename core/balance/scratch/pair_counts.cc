// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/pair_counts.h"

#include <algorithm>
#include <array>
#include <functional>

namespace eplbd {
namespace {

constexpr double kFixedPointHeaviest = 0x1p29;  // so that two add up

// An index of `list`, at random, one that will do where some tries find one.
template <typename WillDo>
int32_t draw(const std::vector<int32_t>& list, Random& random, WillDo will_do) {
  const int kTries = random.below(2) == 0 ? 1 : 8;
  const auto size = static_cast<int32_t>(list.size());
  int32_t index = random.below(size);
  for (int i = 1; i < kTries && !will_do(index); ++i) index = random.below(size);
  return index;
}

}  // namespace

void PairCounts::improve(std::span<const double> weights, int32_t gpus, double target,
                         int32_t changes, Random& random, std::vector<int32_t>& counts) {
  const double heaviest = *std::max_element(weights.begin(), weights.end());
  const double scale = heaviest > 0 ? kFixedPointHeaviest / heaviest : 0;
  gpus_ = gpus;
  count_ = counts;
  weight_.clear();
  spares_.clear();
  shares_.clear();
  for (size_t expert = 0; expert < weights.size(); ++expert) {
    const int32_t count = counts[expert];
    weight_.push_back(static_cast<int32_t>(weights[expert] * scale));
    spares_.insert(spares_.end(), static_cast<size_t>(count - 1), static_cast<int32_t>(expert));
    shares_.insert(shares_.end(), static_cast<size_t>(count), weight_.back() / count);
  }
  if (spares_.empty()) return;
  std::sort(shares_.begin(), shares_.end(), std::greater<>());
  int32_t best = fullest_pair();
  note_fullest(best);
  const double enough = target * scale;
  for (int32_t i = 0; i < changes && best > enough; ++i) best = move_some(best, random);
  counts = count_;
}

// Returns what the fullest pair carries then.
int32_t PairCounts::move_some(int32_t best, Random& random) {
  std::array<Move, kMostMoves> moves;
  int32_t made = 0;
  kept_ = shares_;
  for (int32_t left = 1 + random.below(kMostMoves); left > 0; --left) {
    const int32_t spare =
        draw(spares_, random, [&](int32_t i) { return can_go(spares_[i], best); });
    const int32_t to = draw(count_, random, [&](int32_t i) { return relieves(i); });
    const int32_t from = spares_[spare];
    if (move(spare, to)) moves[made++] = {spare, from};
  }
  if (made == 0) return best;
  const int32_t after = fullest_pair();
  if (after <= best) {
    note_fullest(after);
    return after;
  }
  while (made-- > 0) {
    const auto [spare, from] = moves[made];
    --count_[spares_[spare]];
    ++count_[from];
    spares_[spare] = from;
  }
  std::swap(shares_, kept_);
  return best;
}

// Whether the others of its replicas still fit beside the lightest.
bool PairCounts::can_go(int32_t expert, int32_t best) const {
  return weight_[expert] / (count_[expert] - 1) + shares_.back() <= best;
}

bool PairCounts::move(int32_t spare, int32_t to) {
  const int32_t from = spares_[spare];
  if (from == to || count_[to] == gpus_) return false;
  recount(from, -1);
  recount(to, +1);
  spares_[spare] = to;
  return true;
}

void PairCounts::recount(int32_t expert, int32_t by) {
  const auto place_of = [&](int32_t share) {
    return std::lower_bound(shares_.begin(), shares_.end(), share, std::greater<>());
  };
  const int32_t before = count_[expert];
  const auto first = place_of(weight_[expert] / before);
  count_[expert] += by;
  const int32_t share = weight_[expert] / count_[expert];
  if (by < 0) {  // heavier: before those that were
    const auto place = place_of(share);
    std::move_backward(place, first, first + count_[expert]);
    std::fill_n(place, count_[expert], share);
    shares_.erase(first + count_[expert]);
  } else {  // lighter, or in fixed point as light: behind all that are
    const auto place = std::upper_bound(first, shares_.end(), share, std::greater<>());
    std::move(first + before, place, first);
    std::fill(place - before, place, share);
    shares_.insert(place, share);
  }
}

int32_t PairCounts::fullest_pair() const {
  int32_t most = 0;
  const size_t last = shares_.size() - 1;
  for (size_t i = 0; i < shares_.size() / 2; ++i)
    most = std::max(most, shares_[i] + shares_[last - i]);
  return most;
}

// Whether one replica more may make the fullest pair lighter: of an expert as heavy as its heavier
// one, or of one that then is lighter than its lighter one.
bool PairCounts::relieves(int32_t expert) const {
  return weight_[expert] / count_[expert] >= heavier_ ||
         weight_[expert] / (count_[expert] + 1) < lighter_;
}

void PairCounts::note_fullest(int32_t peak) {
  const size_t last = shares_.size() - 1;
  size_t i = 0;
  while (shares_[i] + shares_[last - i] != peak) ++i;
  heavier_ = shares_[i];
  lighter_ = shares_[last - i];
}

}  // namespace eplbd
