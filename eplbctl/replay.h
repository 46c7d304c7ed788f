// `eplbctl replay`: the daemon's own decisions over a trace, in virtual time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/decide/rebalancer.h"
#include "eplbctl/shape.h"
#include "eplbctl/trace_file.h"
#include "eplbctl/virtual_group.h"

namespace eplbd {

struct ReplayOptions {
  std::string trace;
  ShapeOptions shape;            // without gpus: the configuration's topology
  std::string config;            // the rules; empty: the defaults
  std::optional<Policy> policy;  // given: instead of the configuration's
  std::optional<Hierarchical> hierarchical;
  std::optional<uint64_t> seed;
  VirtualTime time;
  std::string timeline;  // a CSV file, a line a step; empty: none
  bool compare = false;
  std::vector<std::string> compared;  // policies and configuration files; empty: all policies
  bool json = false;                  // of --compare; one replay always prints JSON
};

int run_replay(const ReplayOptions& options);

// What one step came to: of several decisions the update, else the last.
struct ReplayStep {
  int64_t step = 0;
  double imbalance = 0;         // as served; 0 without load
  double imbalance_static = 0;  // had the initial placement been kept
  Verdict verdict = Verdict::no_counts;
  uint64_t version = 0;  // that served its begin
  int64_t moves = 0;     // of the updates decided in it
  int64_t worst_gpu_moves = 0;
  int64_t layers_changed = 0;
  double decide_seconds = 0;
  double half_life_seconds = 0;
};

// Sums over a trace. A step is served under the placements in force during it, before all of its
// counts are seen.
struct ReplayScore {
  int64_t steps = 0;
  double balancedness = 1;         // sum over steps and layers of mean / sum of max GPU load
  double static_balancedness = 1;  // of the initial placement
  std::vector<double> layer_balancedness;  // [layers], over all steps
  int64_t moves = 0;
  int64_t updates = 0;
  int64_t layers_changed = 0;
  int64_t max_moves_per_gpu = 0;  // of one update
  double decide_seconds_total = 0;
  double decide_seconds_p99 = 0;
  std::map<Verdict, int64_t> verdicts;
};

// Requires: the topology is possible and of the trace's shape.
ReplayScore replay(const TraceFile& trace, const Topology& topology, const RebalancerOptions& rules,
                   const VirtualTime& time,
                   const std::function<void(const ReplayStep&)>& each_step);

}  // namespace eplbd
