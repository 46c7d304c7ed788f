// Small regions that the tests of the search share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/balance/random.h"
#include "core/balance/scratch/region_state.h"

namespace eplbd {

inline std::vector<double> random_weights(int32_t experts, double skew, Random& random) {
  std::vector<double> weights;
  for (int32_t i = 0; i < experts; ++i) {
    weights.push_back(std::round(1e5 * std::exp(skew * 3 * (random.between(0, 1) - 0.5))));
  }
  return weights;
}

inline std::vector<double> mixed_speeds(int32_t gpus) {
  std::vector<double> speeds;
  for (int32_t gpu = 0; gpu < gpus; ++gpu)
    speeds.push_back(gpu % 3 == 0 ? 0.8 : 1 + 0.1 * (gpu % 2));
  return speeds;
}

// The least peak there is on GPUs that are alike: every way to give each a set of experts.
class Exhaustive {
 public:
  Exhaustive(const std::vector<double>& weights, int32_t gpus, int32_t slots_per_gpu)
      : weights_(weights), gpus_(gpus), counts_(weights.size()) {
    for (uint32_t set = 0; set < (1U << weights.size()); ++set) {
      if (__builtin_popcount(set) == slots_per_gpu) sets_.push_back(set);
    }
    choose(0, 0);
  }
  double least() const { return least_; }

 private:
  void choose(int32_t gpu, size_t from) {
    if (gpu == gpus_) return judge();
    for (size_t i = from; i < sets_.size(); ++i) {
      chosen_.push_back(sets_[i]);
      for (size_t e = 0; e < counts_.size(); ++e) counts_[e] += sets_[i] >> e & 1;
      choose(gpu + 1, i);
      for (size_t e = 0; e < counts_.size(); ++e) counts_[e] -= sets_[i] >> e & 1;
      chosen_.pop_back();
    }
  }

  void judge() {
    if (std::count(counts_.begin(), counts_.end(), 0) > 0) return;
    double most = 0;
    for (const uint32_t set : chosen_) {
      double sum = 0;
      for (size_t e = 0; e < counts_.size(); ++e) {
        if (set >> e & 1) sum += weights_[e] / counts_[e];
      }
      most = std::max(most, sum);
    }
    least_ = std::min(least_, most);
  }

  const std::vector<double>& weights_;
  int32_t gpus_;
  std::vector<uint32_t> sets_, chosen_;
  std::vector<int32_t> counts_;
  double least_ = 1e300;
};

// What must hold of a placement whose slots are all filled, counted anew.
inline bool is_consistent(const RegionState& state) {
  std::vector<int32_t> counts(state.weight.size());
  std::vector<double> tokens(state.tokens.size());
  for (const int32_t expert : state.expert_at) {
    if (expert < 0) return false;
    ++counts[expert];
  }
  if (counts != state.count || *std::min_element(counts.begin(), counts.end()) < 1) return false;
  std::vector<int32_t> held(state.weight.size() * tokens.size());
  for (int32_t slot = 0; slot < state.slots(); ++slot) {
    const int32_t expert = state.expert_at[slot];
    tokens[state.gpu_of(slot)] += state.weight[expert] / counts[expert];
    if (++held[expert * state.gpus + state.gpu_of(slot)] > 1) return false;
  }
  for (int32_t gpu = 0; gpu < state.gpus; ++gpu) {
    if (std::abs(tokens[gpu] - state.tokens[gpu]) > 1e-6 * (1 + state.mean)) return false;
    for (int32_t expert = 0; expert < state.experts; ++expert) {
      if (state.holds(gpu, expert) != (held[expert * state.gpus + gpu] == 1)) return false;
    }
  }
  return true;
}

}  // namespace eplbd
