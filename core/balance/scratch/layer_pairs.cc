// Two slots a GPU: for given replica counts the best is the heaviest with the lightest, and so on
// inwards, which is how LayerSearch places in order. So only counts are left to search.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <functional>

#include "core/balance/scratch/layer_search.h"

namespace eplbd {

void LayerSearch::construct_pairs(double target, int32_t attempts, Random& random) {
  fill_water();
  list_shares();
  double best = fullest_pair();
  for (int32_t i = 0; i < attempts && best > target; ++i) {
    best = move_replicas(1 + random.below(3), best, random);
  }
  ordered_ = false;
  sort_experts();
  place_in_order();
}

// Random changes of counts, kept unless the fullest pair becomes fuller. Returns what it carries.
double LayerSearch::move_replicas(int32_t moves, double best, Random& random) {
  constexpr int32_t kMostMoves = 3;
  constexpr int32_t kTries = 16;
  std::array<std::pair<int32_t, int32_t>, kMostMoves> moved;
  kept_shares_ = shares_in_order_;
  int32_t made = 0;
  for (int32_t i = 0; i < moves; ++i) {
    int32_t from = random.below(experts_);
    for (int32_t tries = 0; tries < kTries && state_.count[from] == 1; ++tries) {
      from = random.below(experts_);
    }
    const int32_t to = random.below(experts_);
    if (from == to || state_.count[from] == 1 || state_.count[to] == gpus_) continue;
    recount_in_order(from, -1);
    recount_in_order(to, +1);
    moved[made++] = {from, to};
  }
  if (made == 0) return best;
  const double after = fullest_pair();
  if (after <= best) return after;
  while (made-- > 0) {
    for (const auto& [expert, by] : {std::pair(moved[made].first, 1), {moved[made].second, -1}}) {
      state_.count[expert] += by;
      state_.share[expert] = weight_[expert] / state_.count[expert];
    }
  }
  std::swap(shares_in_order_, kept_shares_);
  return best;
}

void LayerSearch::list_shares() {
  shares_in_order_.clear();
  for (const int32_t expert : order_) {
    shares_in_order_.insert(shares_in_order_.end(), static_cast<size_t>(state_.count[expert]),
                            state_.share[expert]);
  }
}

void LayerSearch::recount_in_order(int32_t expert, int32_t by) {
  auto& shares = shares_in_order_;
  const auto place_of = [&](double share) {
    return std::lower_bound(shares.begin(), shares.end(), share, std::greater<>());
  };
  const auto first = place_of(state_.share[expert]);
  shares.erase(first, first + state_.count[expert]);
  state_.count[expert] += by;
  state_.share[expert] = weight_[expert] / state_.count[expert];
  shares.insert(place_of(state_.share[expert]), static_cast<size_t>(state_.count[expert]),
                state_.share[expert]);
}

double LayerSearch::fullest_pair() const {
  double most = 0;
  for (size_t i = 0, j = shares_in_order_.size(); i < --j; ++i) {
    most = std::max(most, shares_in_order_[i] + shares_in_order_[j]);
  }
  return most * inverse_speed_.front();
}

}  // namespace eplbd
