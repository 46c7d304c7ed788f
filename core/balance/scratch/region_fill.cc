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

// Attempts at a region that is off its bound, before it is left: fewer the larger it is.
constexpr int32_t kSlotAttempts = 24000;
constexpr int32_t kExactAttempts = 160;
constexpr int32_t kLeastAttempts = 8;
constexpr int32_t kMostAttempts = 1600;
constexpr int32_t kNearbyAttempts = 100;
constexpr int32_t kLastAttempts = 6;
constexpr double kNear = 5e-5;
constexpr double kCoarsest = 5e-4;
// Above that a start is hardly evened out by exchanges alone.
constexpr double kFar = 1.05;
constexpr int32_t kFewSlots = 64;
constexpr int32_t kScatteredSlots = 24;
constexpr int32_t kRounds = 8;
constexpr int32_t kFewRounds = 3;
constexpr int32_t kMostStarts = 8;
constexpr int32_t kAttemptsOfAStart = 20;

// So near to its bound a region counts as there. Fewer GPUs, and more slots on each, can be evened
// out finer.
double tolerance(double gpus, double slots_per_gpu) {
  const double fine = 5.5e-6 * std::pow(gpus / 8, 2) * std::pow(9 / slots_per_gpu, 5);
  return std::min({fine, 2.5e-4 * std::sqrt(gpus / 32), kCoarsest});
}

}  // namespace

void RegionFiller::take(std::span<const double> weights, std::span<const double> speeds) {
  weights_ = weights;
  speeds_ = speeds;
  tolerated_ = tolerance(static_cast<double>(speeds.size()), slots_per_gpu_);
  if (!more_slots_than_experts()) search_.reset(weights, speeds, slots_per_gpu_);
}

void RegionFiller::fill(double enough, RegionPlan& plan, Random& random) {
  if (more_slots_than_experts()) return fill_with_copies(plan);
  enough_ = enough;
  quantum_ = quantum();
  plan.peak = std::numeric_limits<double>::infinity();
  search_.construct(0, enough_);
  if (search_.peak() <= target() || even_out(random)) return keep(plan);
  search_.descend(target());
  const bool even = even_out(random);
  keep(plan);
  if (even) return;
  if (plan.peak > off_bound()) search_more(plan, random);
  search_.load(plan.expert_at);
  for (int32_t i = 0; i < kLastAttempts && search_.peak() > target(); ++i) {
    search_.attempt_nearby(target(), random);
  }
  keep(plan);
}

bool RegionFiller::far(const RegionPlan& plan) const {
  constexpr double kFarOff = 1 + 1e-3;
  return !more_slots_than_experts() && plan.peak > enough_ * kFarOff;
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

double RegionFiller::bound() const {
  if (more_slots_than_experts()) return 0;
  return peak_bound(weights_, speeds_, slots_per_gpu_);
}

bool RegionFiller::at(double enough, const RegionPlan& plan) const {
  return more_slots_than_experts() || plan.peak <= enough * (1 + tolerated_);
}

void RegionFiller::attempt(double enough, int32_t attempts, RegionPlan& plan, Random& random) {
  constexpr double kStep = 0.5;  // of the way
  search_.load(plan.expert_at);
  for (int32_t i = 0; i < attempts; ++i) {
    if (exact()) {
      search_.attempt_exact(enough + kStep * (search_.peak() - enough), 0, random);
    } else {
      search_.attempt(enough, random);
    }
  }
  keep(plan);
}

// Exact exchanges find a way for few GPUs; but not among so few slots that all there is to find is
// which experts have how many replicas.
bool RegionFiller::exact() const {
  const auto gpus = static_cast<int32_t>(speeds_.size());
  return gpus <= LayerSearch::kFewGpus && gpus * slots_per_gpu_ > kScatteredSlots;
}

// A peak above that is worth more than a few last attempts.
double RegionFiller::off_bound() const {
  return enough_ *
         (1 + std::max(tolerated_, exact() ? kNear : std::min(8 * tolerated_, kCoarsest)));
}

double RegionFiller::quantum() const {
  const double least = enough_ * tolerated_;
  uint64_t common = 0;
  for (const double weight : weights_) {
    if (weight != std::floor(weight) || weight >= 0x1p63) return 0;
    common = std::gcd(common, static_cast<uint64_t>(weight));
    if (common > 0 && static_cast<double>(common) < least) return 0;
  }
  return static_cast<double>(common);
}

void RegionFiller::keep(RegionPlan& plan) const {
  if (search_.peak() >= plan.peak) return;
  plan.expert_at.assign(search_.expert_at().begin(), search_.expert_at().end());
  plan.peak = search_.peak();
}

// Twice as far from the bound is five times as easy; and from there it is another start.
bool RegionFiller::even_out(Random& random) {
  if (!exact() || search_.peak() > enough_ * kFar) return false;
  if (search_.even_out(target(), quantum_, random)) return true;
  for (double more = 2 * tolerated_; more < kNear / 2; more *= 2) {
    if (!search_.even_out(enough_ * (1 + more), quantum_, random)) continue;
    search_.even_out(target(), quantum_, random);
    return true;
  }
  return false;
}

// Two slots a GPU: counts alone decide, and steps between GPUs seldom change them well.
void RegionFiller::search_pairs(RegionPlan& plan, Random& random) {
  constexpr int32_t kChanges = 20000;
  enough_ = std::max(enough_, bound());
  search_.construct_pairs(target(), kChanges, random);
  keep(plan);
}

bool RegionFiller::alike() const {
  return std::all_of(speeds_.begin(), speeds_.end(), [&](double s) { return s == speeds_[0]; });
}

bool RegionFiller::few_placements() const {
  return alike() && placements_are_few(static_cast<int32_t>(weights_.size()),
                                       static_cast<int32_t>(speeds_.size()), slots_per_gpu_);
}

// Beside replicas of the hottest there may be too little room for what is next: so first with fewer
// of them.
void RegionFiller::search_more(RegionPlan& plan, Random& random) {
  if (few_placements()) {
    const auto best = best_placement_below(plan.peak * speeds_[0], weights_,
                                           static_cast<int32_t>(speeds_.size()), slots_per_gpu_);
    if (!best.empty()) search_.load(best);
    return keep(plan);
  }
  if (slots_per_gpu_ == 2 && alike() &&
      static_cast<int32_t>(plan.expert_at.size()) > kScatteredSlots) {
    return search_pairs(plan, random);
  }
  if (!exact()) {
    enough_ = std::max(enough_, bound());
    return search_by_steps(plan, random);
  }
  int32_t starts = 1;
  for (; starts < kMostStarts && search_.construct(starts, enough_); ++starts) {
    if (search_.peak() > enough_ * kFar) continue;
    if (search_.even_out(target(), quantum_, random)) return keep(plan);
  }
  enough_ = std::max(enough_, bound());
  search_exactly(starts, plan, random);
}

// From one start after another: random changes, and what they leave is evened out. The target
// follows what proves possible.
void RegionFiller::search_exactly(int32_t starts, RegionPlan& plan, Random& random) {
  constexpr double kHarder = 0.25;
  constexpr double kEasier = 1.2;
  constexpr double kLower = 0.7;
  double more = tolerated_;
  for (int32_t i = 0; i < kExactAttempts && plan.peak > target(); ++i) {
    if (i % kAttemptsOfAStart == 0) {
      search_.construct((i / kAttemptsOfAStart + 1) % starts, enough_);
      search_.descend(target());
      even_out(random);
      keep(plan);
    }
    more = std::max(std::min(more, kLower * (plan.peak / enough_ - 1)), tolerated_);
    more *= search_.attempt_exact(enough_ * (1 + more), quantum_, random) ? kHarder : kEasier;
    keep(plan);
  }
}

// Far from the bound by large steps, near it by small ones. Where few slots make a trap of many a
// local optimum, several times, from the start or from anywhere.
void RegionFiller::search_by_steps(RegionPlan& plan, Random& random) {
  const auto slots = static_cast<int32_t>(plan.expert_at.size());
  const int32_t attempts = std::clamp(kSlotAttempts / slots, kLeastAttempts, kMostAttempts);
  const int32_t rounds = slots <= kScatteredSlots ? kRounds : slots <= kFewSlots ? kFewRounds : 1;
  for (int32_t round = 0; round < rounds && plan.peak > target(); ++round) {
    if (round > 0 && slots <= kScatteredSlots) search_.scatter(random);
    if (round > 0 && slots > kScatteredSlots) search_.construct(0, enough_);
    const double near = enough_ * (1 + std::max(tolerated_, kNear));
    for (int32_t i = 0; i < attempts / rounds && search_.peak() > near; ++i) {
      search_.attempt(target(), random);
    }
    const int32_t nearby = std::min(attempts / rounds, kNearbyAttempts);
    for (int32_t i = 0; i < nearby && search_.peak() > off_bound(); ++i) {
      search_.attempt_nearby(target(), random);
    }
    keep(plan);
  }
}

}  // namespace eplbd
