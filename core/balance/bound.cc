// SPDX-License-Identifier: Apache-2.0
#include "core/balance/bound.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace eplbd {
namespace {

// Rounding must not call a peak impossible that can just be reached.
constexpr double kSlack = 1 + 1e-12;
constexpr int kHalvings = 24;  // between the mean and twice as much, and so on: to 1e-7

// Refutes peaks: what would have to hold of every placement with at most that peak, does not.
//
// Say expert e needs at least r[e] replicas then. With base[e] = weight / r, and R slots that are
// left over, any q slots carry at least the q - R lightest base replicas: a leftover slot saves at
// most one of them, by splitting an expert further. (It is the Lagrangian of "choose q replicas as
// light as possible" at the price of the (q - R)-th.)
class PeakRefuter {
 public:
  PeakRefuter(std::span<const double> weights, std::span<const double> speeds,
              int32_t slots_per_gpu)
      : weight_(weights.begin(), weights.end()),
        speed_(speeds.begin(), speeds.end()),
        slots_per_gpu_(slots_per_gpu),
        gpus_(static_cast<int32_t>(speeds.size())) {
    std::sort(weight_.begin(), weight_.end(), std::greater<>());
    std::sort(speed_.begin(), speed_.end(), std::greater<>());
    order_.resize(weight_.size());
    std::iota(order_.rbegin(), order_.rend(), 0);
    speed_sum_.resize(speed_.size() + 1);
    std::partial_sum(speed_.begin(), speed_.end(), speed_sum_.begin() + 1);
  }

  double mean() const {
    return std::accumulate(weight_.begin(), weight_.end(), 0.0) / speed_sum_.back();
  }

  bool refutes(double peak) {
    needed_.assign(weight_.size(), 1);
    left_over_ = gpus_ * slots_per_gpu_ - static_cast<int32_t>(weight_.size());
    // Each round's needs leave fewer slots over, and so weigh the next round's companions more.
    constexpr int kRounds = 4;
    for (int round = 0; round < kRounds; ++round) {
      order_base();
      const int32_t before = left_over_;
      if (!count_needed(peak)) return true;
      if (left_over_ == before) break;
    }
    order_base();
    return !heaviest_fit(peak);
  }

 private:
  double base(int32_t expert) const { return weight_[expert] / needed_[expert]; }

  // order_: experts by base replica, lightest first; lightest_[q]: the q lightest base replicas.
  // Only a few change places since the last time.
  void order_base() {
    const auto lighter = [&](int32_t a, int32_t b) { return base(a) < base(b); };
    for (auto place = order_.begin() + 1; place < order_.end(); ++place) {
      if (!lighter(*place, place[-1])) continue;
      std::rotate(std::upper_bound(order_.begin(), place, *place, lighter), place, place + 1);
    }
    lightest_.assign(1, 0.0);
    for (const int32_t expert : order_) {
      for (int32_t i = 0; i < needed_[expert]; ++i) {
        lightest_.push_back(lightest_.back() + base(expert));
      }
    }
  }

  double least_load_of(int32_t slots) const { return lightest_[std::max(slots - left_over_, 0)]; }

  // The least that the other slots of one GPU can carry: distinct experts, every left-over slot
  // used where it lightens them most. Sharper than least_load_of() for a few slots.
  double least_companions() const {
    const int32_t companions = slots_per_gpu_ - 1;
    std::vector<int32_t> count(static_cast<size_t>(companions));
    double sum = 0;
    for (int32_t i = 0; i < companions; ++i) {
      count[i] = needed_[order_[i]];
      if (count[i] > 1) return least_load_of(companions);
      sum += weight_[order_[i]];
    }
    for (int32_t spare = left_over_; spare > 0; --spare) {
      double most = 0;
      int32_t lightened = -1;
      for (int32_t i = 0; i < companions; ++i) {
        if (count[i] == gpus_) continue;
        const double saved = weight_[order_[i]] / (count[i] * (count[i] + 1.0));
        if (saved <= most) continue;
        most = saved;
        lightened = i;
      }
      if (lightened < 0) break;
      sum -= most;
      ++count[lightened];
    }
    return std::max(sum, least_load_of(companions));
  }

  // False: some expert, or all together, cannot have as many replicas as they need.
  bool count_needed(double peak) {
    const double companions = least_companions();
    int32_t left_over = gpus_ * slots_per_gpu_;
    for (size_t expert = 0; expert < weight_.size(); ++expert) {
      int32_t& count = needed_[expert];
      while (count <= gpus_ && !may_have(weight_[expert], count, companions, peak)) ++count;
      if (count > gpus_) return false;
      left_over -= count;
    }
    left_over_ = left_over;
    return left_over >= 0;
  }

  // Whether `count` replicas can lie on as many GPUs: each beside the lightest companions, and
  // their GPUs together.
  bool may_have(double weight, int32_t count, double companions, double peak) const {
    const double limit = peak * kSlack;
    return weight / count + companions <= limit * speed_[count - 1] &&
           weight + least_load_of(count * (slots_per_gpu_ - 1)) <= limit * speed_sum_[count];
  }

  // The replicas of the heaviest experts lie on some n GPUs, whose other slots hold at least the
  // lightest of the rest. That must fit for some n, whatever number of experts we call heaviest.
  bool heaviest_fit(double peak) const {
    double heavy = 0;
    int32_t replicas = 0;
    for (auto expert = order_.rbegin(); expert != order_.rend(); ++expert) {
      heavy += weight_[*expert];
      replicas += needed_[*expert];
      int32_t n = std::min(gpus_, replicas + left_over_);
      const auto fits = [&] {
        return heavy + least_load_of(n * slots_per_gpu_ - replicas) <=
               peak * kSlack * speed_sum_[n];
      };
      while (n > 0 && !fits()) --n;
      if (n == 0) return false;
    }
    return true;
  }

  std::vector<double> weight_;     // heaviest first
  std::vector<double> speed_;      // fastest first
  std::vector<double> speed_sum_;  // of the n fastest
  int32_t slots_per_gpu_;
  int32_t gpus_;
  int32_t left_over_ = 0;
  std::vector<int32_t> needed_;   // [experts]
  std::vector<int32_t> order_;    // [experts]
  std::vector<double> lightest_;  // [base replicas + 1]
};

}  // namespace

double peak_bound(std::span<const double> weights, std::span<const double> speeds,
                  int32_t slots_per_gpu) {
  PeakRefuter refuter(weights, speeds, slots_per_gpu);
  double impossible = refuter.mean();  // below it, that is
  if (!refuter.refutes(impossible)) return impossible;
  double possible = impossible * 2;
  while (refuter.refutes(possible)) {
    impossible = possible;
    possible *= 2;
  }
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (impossible + possible) / 2;
    (refuter.refutes(middle) ? impossible : possible) = middle;
  }
  return impossible;
}

}  // namespace eplbd
