// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/every_placement.h"

#include <algorithm>
#include <bit>
#include <cstddef>

namespace eplbd {
namespace {

constexpr double kMostPlacements = 2e6;
constexpr int32_t kMostExperts = 16;
constexpr double kProgress = 1 - 1e-12;  // lower by more than rounding

double choices(double of, int32_t count) {
  double result = 1;
  for (int32_t i = 0; i < count; ++i) result *= (of - i) / (i + 1);
  return result;
}

// A GPU holds a set of experts, and the order of GPUs does not matter: sets in ascending order, one
// GPU after the other; left as soon as some GPU carries too much even with all replicas that can
// still come, or so little even without them that the others carry too much.
class SetSearch {
 public:
  SetSearch(double peak, std::span<const double> weights, int32_t gpus, int32_t slots_per_gpu)
      : experts_(static_cast<int32_t>(weights.size())),
        gpus_(gpus),
        slots_per_gpu_(slots_per_gpu),
        peak_(peak),
        share_(weights.size() * (gpus + 1)),
        replicas_(weights.size()),
        least_(weights.size()),
        most_(weights.size()) {
    for (int32_t expert = 0; expert < experts_; ++expert) {
      for (int32_t count = 1; count <= gpus; ++count)
        share(expert, count) = weights[expert] / count;
      total_ += weights[expert];
    }
    for (uint64_t set = 0; set < uint64_t{1} << experts_; ++set) {
      if (std::popcount(set) == slots_per_gpu) sets_.push_back(static_cast<uint32_t>(set));
    }
  }

  std::vector<int32_t> run() {
    choose_from(0);
    std::vector<int32_t> expert_at;
    for (const uint32_t set : best_) {
      for_each(set, [&](int32_t expert) { expert_at.push_back(expert); });
    }
    return expert_at;
  }

 private:
  double& share(int32_t expert, int32_t count) { return share_[expert * (gpus_ + 1) + count]; }

  template <typename Visit>
  static void for_each(uint32_t set, Visit visit) {
    for (; set != 0; set &= set - 1) visit(std::countr_zero(set));
  }

  void choose_from(size_t first) {
    for (size_t i = first; i < sets_.size(); ++i) {
      chosen_.push_back(sets_[i]);
      for_each(sets_[i], [&](int32_t expert) { ++replicas_[expert]; });
      if (may_stay_below()) {
        if (static_cast<int32_t>(chosen_.size()) == gpus_) {
          peak_ = fullest_;
          best_ = chosen_;
        } else {
          choose_from(i);
        }
      }
      for_each(sets_[i], [&](int32_t expert) { --replicas_[expert]; });
      chosen_.pop_back();
    }
  }

  // Sets fullest_ to what the fullest GPU so far carries at least: all of it, at the last GPU.
  bool may_stay_below() {
    const int32_t left = gpus_ - static_cast<int32_t>(chosen_.size());
    int32_t missing = 0;
    for (int32_t expert = 0; expert < experts_; ++expert) {
      missing += replicas_[expert] == 0;
      least_[expert] = share(expert, replicas_[expert] + left);
      most_[expert] = share(expert, std::max(replicas_[expert], 1));
    }
    if (missing > left * slots_per_gpu_) return false;
    const double limit = peak_ * kProgress;
    const double enough = total_ - (gpus_ - 1) * limit;
    fullest_ = 0;
    for (auto set = chosen_.rbegin(); set != chosen_.rend(); ++set) {
      double least = 0;
      double most = 0;
      for_each(*set, [&](int32_t expert) {
        least += least_[expert];
        most += most_[expert];
      });
      if (least >= limit || most < enough * kProgress) return false;
      fullest_ = std::max(fullest_, least);
    }
    return true;
  }

  int32_t experts_, gpus_, slots_per_gpu_;
  double peak_;                       // to be below
  std::vector<double> share_;         // [experts, gpus + 1] by number of replicas
  std::vector<int32_t> replicas_;     // [experts] so far
  std::vector<double> least_, most_;  // [experts] share that it comes to at least, and at most
  double total_ = 0;
  std::vector<uint32_t> sets_;  // bits are experts
  std::vector<uint32_t> chosen_, best_;
  double fullest_ = 0;
};

}  // namespace

bool placements_are_few(int32_t experts, int32_t gpus, int32_t slots_per_gpu) {
  if (experts > kMostExperts || slots_per_gpu > experts) return false;
  const double sets = choices(experts, slots_per_gpu);
  return choices(sets + gpus - 1, gpus) <= kMostPlacements;
}

std::vector<int32_t> best_placement_below(double peak, std::span<const double> weights,
                                          int32_t gpus, int32_t slots_per_gpu) {
  return SetSearch(peak, weights, gpus, slots_per_gpu).run();
}

}  // namespace eplbd
