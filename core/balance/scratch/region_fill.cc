// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/region_fill.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/balance/bound.h"
#include "core/balance/scratch/every_placement.h"

namespace eplbd {
namespace {

// Finer with more slots on a GPU, which can be combined in more ways; coarser with many GPUs, as
// each takes its time.
double tolerance_of(const SearchConstants& constants, int32_t gpus, int32_t slots_per_gpu) {
  const double tolerance =
      constants.nine_slots * std::pow(9.0 / slots_per_gpu, 3.5) * std::max(1.0, gpus / 16.0);
  return std::clamp(tolerance, constants.finest, constants.coarsest);
}

}  // namespace

void RegionFiller::take(std::span<const double> weights, std::span<const double> speeds) {
  weights_ = weights;
  speeds_ = speeds;
  if (more_slots_than_experts()) return;
  state_.reset(weights, speeds, slots_per_gpu_);
  descent_.reset(state_);
  tolerance_ = tolerance_of(constants_, state_.gpus, slots_per_gpu_);
  out_of_reach_ = state_.mean;
}

double RegionFiller::goal(double above) const {
  return std::max(enough_, out_of_reach_ * (1 + above));
}

void RegionFiller::fill(double enough, RegionPlan& plan, Random& random) {
  if (more_slots_than_experts()) return fill_with_copies(plan);
  enough_ = enough;
  plan.peak = std::numeric_limits<double>::infinity();
  start_.count_by_water(state_, counts_);
  start_and_descend(plan);
  if (plan.peak > goal(tolerance_ + constants_.settled)) search_more(plan, random);
}

void RegionFiller::start_and_descend(RegionPlan& plan) {
  start_.place(counts_, state_);
  // Far off there may be a bound in the way, and it takes long to find out by searching.
  if (state_.peak() > goal(constants_.far)) out_of_reach_ = std::max(out_of_reach_, bound());
  descent_.reset(state_);
  descent_.run(goal(tolerance_), state_);
  state_.refresh_tokens();
  keep(plan);
}

bool RegionFiller::far(const RegionPlan& plan) const {
  constexpr double kFar = 1 + 1e-3;
  return !more_slots_than_experts() && plan.peak > goal(0) * kFar;
}

// More slots on a GPU than experts that may lie there: every GPU holds them all, the first ones
// more than once, and all GPUs carry alike.
void RegionFiller::fill_with_copies(RegionPlan& plan) const {
  plan.expert_at.clear();
  for (size_t gpu = 0; gpu < speeds_.size(); ++gpu) {
    for (int32_t slot = 0; slot < slots_per_gpu_; ++slot) {
      plan.expert_at.push_back(slot % static_cast<int32_t>(weights_.size()));
    }
  }
  const double tokens = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  plan.peak = tokens / static_cast<double>(speeds_.size()) /
              *std::min_element(speeds_.begin(), speeds_.end());
}

double RegionFiller::bound() const { return peak_bound(weights_, speeds_, slots_per_gpu_); }

bool RegionFiller::at_bound(const RegionPlan& plan) const {
  return more_slots_than_experts() || plan.peak <= bound() * (1 + tolerance_);
}

// Half of what is left of the way to the bound is aimed at.
void RegionFiller::attempt(int32_t attempts, RegionPlan& plan, Random& random) {
  const double least = bound();
  state_.load(plan.expert_at);
  descent_.reset(state_);
  for (int32_t i = 0; i < attempts; ++i) {
    descent_.attempt((least + state_.peak()) / 2, random, state_);
  }
  keep(plan);
}

void RegionFiller::keep(RegionPlan& plan) const {
  const double peak = state_.peak();
  if (peak >= plan.peak) return;
  plan.expert_at.assign(state_.expert_at.begin(), state_.expert_at.end());
  plan.peak = peak;
}

void RegionFiller::search_more(RegionPlan& plan, Random& random) {
  if (state_.alike && placements_are_few(state_.experts, state_.gpus, slots_per_gpu_)) {
    return try_every_placement(plan);
  }
  out_of_reach_ = std::max(out_of_reach_, bound());
  if (plan.peak <= goal(tolerance_ + constants_.settled)) return;
  if (slots_per_gpu_ == 2 && state_.alike) return search_counts(plan, random);
  search_by_attempts(plan, random);
}

void RegionFiller::try_every_placement(RegionPlan& plan) {
  const auto best =
      best_placement_below(plan.peak * speeds_[0], weights_, state_.gpus, slots_per_gpu_);
  if (best.empty()) return;
  state_.load(best);
  keep(plan);
}

// Counts alone decide, and steps between GPUs seldom change them well.
void RegionFiller::search_counts(RegionPlan& plan, Random& random) {
  pair_counts_.improve(weights_, state_.gpus, goal(tolerance_) * speeds_[0], constants_.count_moves,
                       random, counts_);
  start_.place(counts_, state_);
  keep(plan);
}

// Random changes, and where that is cheap from one start after another: beside replicas of the
// hottest on every GPU there may be too little room for the next, so each has one of them less.
void RegionFiller::search_by_attempts(RegionPlan& plan, Random& random) {
  constexpr double kWaysAsLong = 600;  // as what an attempt does beside looking through ways
  const double cost = state_.slots() * (kWaysAsLong + descent_.ways());
  const int32_t attempts =
      std::max(constants_.least_attempts, static_cast<int32_t>(constants_.attempts_by_cost / cost));
  const int32_t attempts_of_a_start = std::max(1, attempts / constants_.starts);
  for (int32_t i = 0; i < attempts && plan.peak > goal(tolerance_ + constants_.settled); ++i) {
    const bool another_start =
        state_.gpus <= constants_.few_gpus && plan.peak > goal(constants_.near);
    if (another_start && i > 0 && i % attempts_of_a_start == 0) {
      if (!start_.pass_replica_on(state_, counts_)) start_.count_by_water(state_, counts_);
      start_and_descend(plan);
    }
    descent_.attempt(goal(tolerance_), random, state_);
    keep(plan);
  }
}

}  // namespace eplbd
