// A rebalancer and the one group of workers that it balances, in virtual time: counts of a step
// come from one source, placements are applied some seconds after they are published.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "core/decide/rebalancer.h"

namespace eplbd {

class VirtualGroup {
 public:
  VirtualGroup(const Topology& topology, const RebalancerOptions& options, double step_seconds,
               double apply_seconds);

  struct Step {
    Decision decision;
    Placement base;             // what it was decided under
    double decide_seconds = 0;  // real
  };
  // The next step's counts [layers, logical_experts], seen at its end; then one decision.
  Step step(std::span<const uint32_t> counts);

  // What serves the next step.
  const Placement& serving() const { return serving_; }
  PlacementId running() const { return running_; }
  Duration half_life() const { return rebalancer_.half_life(); }

 private:
  Now at(double seconds) const;
  void report_counts(std::span<const uint32_t> counts, Now now);
  void report_state(Now now);
  void apply(double until_seconds);

  Topology topology_;
  double step_seconds_;
  double apply_seconds_;
  Rebalancer rebalancer_;
  int64_t steps_ = 0;
  uint64_t state_messages_ = 0;
  Placement serving_;
  PlacementId running_;
  std::optional<PlacementUpdate> pending_;
  double applied_at_ = 0;
};

}  // namespace eplbd
