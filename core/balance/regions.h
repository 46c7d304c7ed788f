// Where a layer's experts may lie: the GPUs that are up, split in the regions which a from-scratch
// placement fills one by one. A region is a node under the hierarchical policy, else everything.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/balance/balancer.h"
#include "core/model/topology.h"

namespace eplbd {

struct Regions {
  bool hierarchical = false;
  int32_t groups_per_region = 1;  // 1 group of all experts when not hierarchical
  int32_t experts_per_group = 0;
  std::vector<std::vector<int32_t>> gpus;  // [regions] the live ones, ascending

  int32_t size() const { return static_cast<int32_t>(gpus.size()); }
  int32_t groups() const { return groups_per_region * size(); }
  int32_t experts_per_region() const { return groups_per_region * experts_per_group; }
};

// Nodes where that was asked for, the shape divides and each node's live slots hold its experts;
// else one region. Throws std::invalid_argument when the live slots cannot hold every expert.
Regions regions_of(const BalancerOptions& options, const Topology& topology,
                   std::span<const int32_t> gpus_down);

}  // namespace eplbd
