// All that a decision is made from. Only the rebalancer changes it; the rules and the search read
// it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/balance/balancer.h"
#include "core/decide/answer.h"
#include "core/decide/gain_tracker.h"
#include "core/decide/options.h"
#include "core/decide/rebalancer_state.h"
#include "core/load/adaptive_window.h"
#include "core/load/jump_detector.h"
#include "core/model/time.h"
#include "core/model/topology.h"
#include "core/workers/group_state.h"
#include "core/workers/source_table.h"

namespace eplbd {

// What of the options sources follow. Rates need one decay for tokens and steps alike.
SourceRules source_rules(const RebalancerOptions& options);
Duration rate_half_life(const WindowOptions& options);

// What the state's maps are of.
Topology topology_of(const Topology& configured, const RebalancerState& state);

struct Situation {
  Situation(const Topology& configured, const RebalancerOptions& options, Now now,
            RebalancerState recovered);
  Situation(const Situation&) = delete;  // its parts refer to each other
  Situation& operator=(const Situation&) = delete;

  Mode mode() const { return state.mode.value_or(options.mode); }
  bool paused(TimePoint now) const;
  // Unix seconds of a moment, by the clock as it was last seen: rules go by this date, which no
  // jump of the wall clock moves against what they compare it with.
  double date(TimePoint moment) const {
    return clock_ahead + to_seconds(moment.time_since_epoch());
  }
  std::vector<double> loads(TimePoint now) const;  // [layers, logical_experts] the window
  // The GPUs that hold nothing are not the ones that are to hold nothing.
  bool gpus_to_change() const;

  const Topology configured;
  RebalancerOptions options;
  RebalancerState state;
  Topology topology;  // the configured one, in the state's shape
  std::unique_ptr<const Balancer> balancer;
  SourceTable sources;
  AdaptiveWindow window;
  JumpDetector jump;
  std::optional<TimePoint> jumped_at;  // the load; it is not answered yet
  GroupState group;
  GainTracker gain;
  double apply_seconds = 0;        // that the last update took, as the group says
  std::vector<int32_t> gpus_down;  // by an operator's order, or by the group's report; sorted
  bool gpus_ordered = false;       // by an operator, and no update saw to it yet
  double clock_ahead = 0;          // the wall clock's reading less the monotonic one's
  TimePoint started{};
  TimePoint hold_until{};                // a fresh start waits for reports
  std::optional<TimePoint> shadowed_at;  // last would_update: it counts as applied
  struct InVain {
    TimePoint at;
    double imbalance = 0;
    double lacking = 0;  // of what it would have had to gain
    Answer answer;
  };
  std::optional<InVain> in_vain;  // the last search, where it led to no update
};

}  // namespace eplbd
