// Fills one region of a layer from scratch: starts, descents and random changes, as many as it
// takes until the peak is at what another region or a bound demands.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/balance/random.h"
#include "core/balance/scratch/constants.h"
#include "core/balance/scratch/descent.h"
#include "core/balance/scratch/pair_counts.h"
#include "core/balance/scratch/region_state.h"
#include "core/balance/scratch/start.h"

namespace eplbd {

// One region's placement, as it is found.
struct RegionPlan {
  std::vector<int32_t> experts;    // the layer's numbers of them
  std::vector<int32_t> expert_at;  // [gpus, slots_per_gpu] index in `experts`
  double peak = 0;
};

class RegionFiller {
 public:
  RegionFiller(int32_t slots_per_gpu, const SearchConstants& constants)
      : slots_per_gpu_(slots_per_gpu), constants_(constants), descent_(constants) {}

  // The region at hand: weights [experts], speeds [gpus]. They must outlive what is done with it.
  void take(std::span<const double> weights, std::span<const double> speeds);

  // Sets expert_at and peak. A peak of `enough` needs no further search, nor one that is at what is
  // known to be out of reach.
  void fill(double enough, RegionPlan& plan, Random& random);
  // Whether what fill() found last stays far from both.
  bool far(const RegionPlan& plan) const;

  // For searches longer than fill()'s.
  bool at_bound(const RegionPlan& plan) const;
  void attempt(int32_t attempts, RegionPlan& plan, Random& random);

 private:
  bool more_slots_than_experts() const {
    return slots_per_gpu_ > static_cast<int32_t>(weights_.size());
  }
  double bound() const;
  // What is there when it is so far, as a part of it, above what is known to be out of reach.
  double goal(double above) const;
  void fill_with_copies(RegionPlan& plan) const;
  void start_and_descend(RegionPlan& plan);
  void keep(RegionPlan& plan) const;
  void search_more(RegionPlan& plan, Random& random);
  void try_every_placement(RegionPlan& plan);
  void search_counts(RegionPlan& plan, Random& random);
  void search_by_attempts(RegionPlan& plan, Random& random);

  const int32_t slots_per_gpu_;
  const SearchConstants& constants_;
  std::span<const double> weights_, speeds_;
  double enough_ = 0;        // as asked for
  double out_of_reach_ = 0;  // a peak which none is below, as far as is known
  double tolerance_ = 0;     // how far above it counts as there, as a part of it
  RegionState state_;
  Start start_;
  Descent descent_;
  PairCounts pair_counts_;
  std::vector<int32_t> counts_;  // [experts] of the last start
};

}  // namespace eplbd
