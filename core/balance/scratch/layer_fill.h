// Fills one layer after the other from scratch: groups to nodes, the best packings first, and in
// each node the search, until its peak is at what the fullest node allows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "core/balance/group_packing.h"
#include "core/balance/random.h"
#include "core/balance/regions.h"
#include "core/balance/scratch/constants.h"
#include "core/balance/scratch/region_fill.h"
#include "core/model/topology.h"

namespace eplbd {

// One layer's placement as it is found, region by region.
struct LayerPlan {
  std::vector<RegionPlan> regions;
  double peak = std::numeric_limits<double>::infinity();
};

class LayerFiller {
 public:
  LayerFiller(const Topology& topology, const Regions& regions, const SearchConstants& constants);

  // `loads` [logical_experts] of the layer. Requires: `plan` is as new.
  void fill(std::span<const double> loads, Random& random, LayerPlan& plan);
  // Whether some region of any layer stayed far from its bound.
  bool far() const { return far_; }

  // For a longer search: a few more attempts at the region that decides the layer's peak.
  bool at_bound(std::span<const double> loads, const LayerPlan& plan);
  void attempt(std::span<const double> loads, Random& random, LayerPlan& plan);

  // Slots [slots] of the layer.
  void write(const LayerPlan& plan, std::span<int32_t> slot_to_expert) const;

 private:
  void pack_by_search(Random& random);
  void try_packing(std::span<const double> loads, std::span<const int32_t> node_of, Random& random,
                   LayerPlan& best);
  void take(std::span<const double> loads, size_t region, const RegionPlan& plan);
  size_t take_fullest(std::span<const double> loads, const LayerPlan& plan);

  const Topology& topology_;
  const Regions& regions_;
  const SearchConstants& constants_;
  GroupPackings packings_;
  int32_t most_packings_;  // that are tried
  RegionFiller filler_;
  bool far_ = false;
  bool alike_ = true;                        // the regions: as many GPUs, as fast
  std::vector<std::vector<double>> speeds_;  // [regions][gpus]
  std::vector<double> region_speed_;         // [regions] their sum
  LayerPlan trial_;
  std::vector<double> group_tokens_, fullest_, weights_, mean_;
  std::vector<int32_t> node_of_, order_;
};

}  // namespace eplbd
