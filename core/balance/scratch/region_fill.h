// Fills one region of a layer from scratch: starts, descents and exact exchanges of LayerSearch, as
// many as it takes until the peak is at what another region or a bound demands.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/balance/random.h"
#include "core/balance/scratch/layer_search.h"

namespace eplbd {

// One region's placement, as it is found.
struct RegionPlan {
  std::vector<int32_t> experts;    // the layer's numbers of them
  std::vector<int32_t> expert_at;  // [gpus, slots_per_gpu] index in `experts`
  double peak = 0;
};

class RegionFiller {
 public:
  explicit RegionFiller(int32_t slots_per_gpu) : slots_per_gpu_(slots_per_gpu) {}

  // The region at hand: weights [experts], speeds [gpus]. They must outlive what is done with it.
  void take(std::span<const double> weights, std::span<const double> speeds);

  // Sets expert_at and peak. A peak of `enough` needs no further search.
  void fill(double enough, RegionPlan& plan, Random& random);
  // Whether what fill() found last stays far from what was asked, or from a bound of it.
  bool far(const RegionPlan& plan) const;

  // For searches longer than fill()'s.
  double bound() const;
  bool at(double enough, const RegionPlan& plan) const;
  void attempt(double enough, int32_t attempts, RegionPlan& plan, Random& random);

 private:
  void fill_with_copies(RegionPlan& plan) const;
  bool more_slots_than_experts() const {
    return slots_per_gpu_ > static_cast<int32_t>(weights_.size());
  }
  bool exact() const;
  double target() const { return enough_ * (1 + tolerated_); }
  double off_bound() const;
  double quantum() const;
  void keep(RegionPlan& plan) const;
  bool even_out(Random& random);
  bool alike() const;  // the GPUs
  bool few_placements() const;
  void search_pairs(RegionPlan& plan, Random& random);
  void search_more(RegionPlan& plan, Random& random);
  void search_exactly(int32_t starts, RegionPlan& plan, Random& random);
  void search_by_steps(RegionPlan& plan, Random& random);

  const int32_t slots_per_gpu_;
  std::span<const double> weights_, speeds_;
  double enough_ = 0;     // the peak that is aimed at,
  double tolerated_ = 0;  // how far above it counts as there, as a part of it,
  double quantum_ = 0;    // and what all weights are multiples of, where that counts beside it
  LayerSearch search_;
};

}  // namespace eplbd
