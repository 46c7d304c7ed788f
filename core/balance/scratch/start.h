// A first placement of a region, from nothing: how many replicas each expert gets, then the
// heaviest replicas first, each to the GPU that is lightest with it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/balance/scratch/region_state.h"

namespace eplbd {

class Start {
 public:
  // Replica counts [experts] by water-filling: each spare slot to the expert whose replicas carry
  // most, which makes the heaviest replica as light as can be. At most one replica a GPU.
  void count_by_water(const RegionState& state, std::vector<int32_t>& counts);

  // One replica fewer of a hot expert, that whose others then carry least, and one more of a light
  // one. False: there is none to take or none to give it to.
  bool pass_replica_on(const RegionState& state, std::vector<int32_t>& counts) const;

  // Places so many replicas of each expert. Requires: as many as slots, 1 .. gpus of each.
  void place(std::span<const int32_t> counts, RegionState& state);

 private:
  int32_t lightest_with_room(const RegionState& state, int32_t expert) const;
  int32_t make_room(RegionState& state, int32_t expert);
  void put(RegionState& state, int32_t gpu, int32_t expert);

  std::vector<int32_t> order_;   // experts
  std::vector<float> shares_;    // [experts]
  std::vector<int32_t> filled_;  // [gpus] slots
  std::vector<double> open_;     // [gpus] 1 / speed; infinite where all slots are filled
};

}  // namespace eplbd
