// A rebalancer and the one group of workers that it balances, in virtual time: sources report their
// counts out of step, placements are applied some seconds after they are published.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/decide/rebalancer.h"
#include "eplbctl/source_counters.h"

namespace eplbd {

// How a trace is given to the group.
struct VirtualTime {
  double step_seconds = 1;
  double apply_seconds = 0;
  int32_t sources = 1;
};

class VirtualGroup {
 public:
  VirtualGroup(const Topology& topology, const RebalancerOptions& options, const VirtualTime& time);

  struct Decided {
    Decision decision;
    double seconds = 0;  // real
  };
  // One placement, and the part of the step that it served.
  struct Served {
    Placement placement;
    double part = 1;
  };
  struct Step {
    std::vector<Decided> decided;
    std::vector<Served> served;  // in this order; parts sum to 1
  };
  // The next step's counts [layers, logical_experts]. With one source they are seen at its end, and
  // then decided from once; with more, decisions come at the daemon's pace, trigger.interval.
  Step step(std::span<const uint32_t> counts);

  PlacementId running() const { return running_; }
  Duration half_life() const { return rebalancer_.half_life(); }

 private:
  struct Moment;
  std::vector<Moment> moments_of(double begin, double end) const;
  Now at(double seconds) const;
  void report_counts(int32_t source, std::span<const uint32_t> counts, Now now);
  void report_state(Now now);
  void apply();
  Decided decide(double seconds);

  Topology topology_;
  VirtualTime time_;
  double interval_seconds_;
  Rebalancer rebalancer_;
  SourceCounters counters_;
  std::vector<std::string> names_;  // [sources]
  int64_t steps_ = 0;
  uint64_t state_messages_ = 0;
  Placement serving_;
  PlacementId running_;
  std::optional<PlacementUpdate> pending_;
  double applied_at_ = 0;
};

}  // namespace eplbd
