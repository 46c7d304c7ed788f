// SPDX-License-Identifier: Apache-2.0
#include "core/balance/published/repartition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace eplbd {
namespace {

constexpr int32_t kExactItems = 14;
constexpr int kStarts = 5;
constexpr double kEven = 1e-6;  // a difference of no weight
constexpr double kProgress = 1e-9;

// Every half that holds item 0, in lexicographic order, until one is even.
class ExactSplit {
 public:
  explicit ExactSplit(std::span<const double> weights)
      : weights_(weights), half_(static_cast<int32_t>(weights.size()) / 2), chosen_{0} {
    target_ = std::accumulate(weights.begin(), weights.end(), 0.0) / 2;
    extend(weights[0]);
  }
  std::vector<int32_t> best() const { return best_; }

 private:
  void extend(double weight) {
    if (static_cast<int32_t>(chosen_.size()) == half_) {
      const double difference = std::abs(weight - target_);
      if (difference < best_difference_) {
        best_difference_ = difference;
        best_ = chosen_;
      }
      return;
    }
    const auto missing = half_ - static_cast<int32_t>(chosen_.size());
    const auto items = static_cast<int32_t>(weights_.size());
    for (int32_t item = chosen_.back() + 1; item <= items - missing; ++item) {
      if (best_difference_ < kEven) return;
      chosen_.push_back(item);
      extend(weight + weights_[item]);
      chosen_.pop_back();
    }
  }

  std::span<const double> weights_;
  int32_t half_;
  double target_ = 0;
  double best_difference_ = std::numeric_limits<double>::infinity();
  std::vector<int32_t> chosen_, best_;
};

struct Halves {
  std::vector<int32_t> first, second;
  double difference = 0;  // first - second
};

// Items in this order, each to the lighter half while both have room.
Halves fill_greedily(std::span<const double> weights, std::span<const int32_t> order) {
  const size_t half = weights.size() / 2;
  Halves halves;
  for (const int32_t item : order) {
    const bool first =
        halves.second.size() == half || (halves.first.size() < half && halves.difference <= 0);
    (first ? halves.first : halves.second).push_back(item);
    halves.difference += first ? weights[item] : -weights[item];
  }
  return halves;
}

bool exchange_best_pair(std::span<const double> weights, Halves& halves) {
  double best_reduction = 0;
  double best_difference = 0;
  int32_t* best_a = nullptr;
  int32_t* best_b = nullptr;
  for (int32_t& a : halves.first) {
    for (int32_t& b : halves.second) {
      const double difference = halves.difference - 2 * (weights[a] - weights[b]);
      const double reduction = std::abs(halves.difference) - std::abs(difference);
      if (reduction > best_reduction + kProgress) {
        best_reduction = reduction;
        best_difference = difference;
        best_a = &a;
        best_b = &b;
      }
    }
  }
  if (best_a == nullptr) return false;
  std::swap(*best_a, *best_b);
  halves.difference = best_difference;
  return true;
}

}  // namespace

std::vector<int32_t> split_in_halves(std::span<const double> weights, Random& random) {
  if (static_cast<int32_t>(weights.size()) <= kExactItems) return ExactSplit(weights).best();
  std::vector<int32_t> order(weights.size());
  std::vector<double> keys(weights.begin(), weights.end());
  std::vector<int32_t> best;
  double best_difference = std::numeric_limits<double>::infinity();
  for (int start = 0; start < kStarts && best_difference >= kEven; ++start) {
    if (start > 0) {
      for (size_t i = 0; i < keys.size(); ++i) keys[i] = weights[i] * random.between(0.9, 1.1);
    }
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return keys[a] > keys[b]; });
    Halves halves = fill_greedily(weights, order);
    while (exchange_best_pair(weights, halves)) {
    }
    if (std::abs(halves.difference) < best_difference) {
      best_difference = std::abs(halves.difference);
      best = std::move(halves.first);
    }
  }
  return best;
}

}  // namespace eplbd
