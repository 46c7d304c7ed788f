// Did an update pay? Scores the previous placement and the one in force on the load that came
// since that was applied.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/model/placement.h"
#include "core/model/topology.h"

namespace eplbd {

class GainTracker {
 public:
  explicit GainTracker(const Topology& topology);

  // Tokens [layers, logical_experts] that came.
  void add(std::span<const uint32_t> counts);

  // `next` is in force instead of `previous` from now on; how the one before did is judged.
  void applied(const Topology& topology, const Placement& previous, const Placement& next);
  // Something else is in force, by nobody's decision of ours: nothing to judge.
  void adopted();

  // Imbalance of the previous placement minus that of the one in force, both on the load that came
  // since. Nothing without a previous placement or load.
  std::optional<double> realised(const Topology& topology) const;

  // Updates in a row, before the one in force, that gained nothing.
  int32_t unpaid() const { return unpaid_; }

 private:
  std::optional<Placement> previous_;
  Placement in_force_;
  std::vector<double> tokens_;  // since it was applied
  int32_t unpaid_ = 0;
};

}  // namespace eplbd
