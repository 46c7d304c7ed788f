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
#include "eplbctl/engine_group.h"
#include "eplbctl/shape.h"
#include "eplbctl/trace_file.h"
#include "eplbctl/virtual_group.h"

namespace eplbd {

// What a move costs: its weights over the link that brings them to a GPU. 0: not known.
struct TransferPrice {
  double expert_bytes = 0;  // of one expert of one layer
  double bandwidth = 0;     // bytes a second, into one GPU
};

struct ReplayOptions {
  std::string trace;
  ShapeOptions shape;            // without gpus: the configuration's topology
  std::string config;            // the rules; empty: the defaults
  std::optional<Policy> policy;  // given: instead of the configuration's
  std::optional<Hierarchical> hierarchical;
  std::optional<uint64_t> seed;
  VirtualTime time;
  TransferPrice price;
  std::string timeline;  // a CSV file, a line a step; empty: none
  std::string report;    // an HTML file; empty: none
  bool compare = false;
  std::vector<std::string> compared;  // policies, configuration files, engines; empty: the usual
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
  std::vector<double> static_layer_balancedness;
  int64_t moves = 0;
  int64_t worst_gpu_moves = 0;        // sum over updates of the most that one GPU received in it
  int64_t most_moves_in_an_hour = 0;  // into one GPU, in any hour of the trace
  int64_t updates = 0;
  int64_t layers_changed = 0;
  int64_t max_moves_per_gpu = 0;  // of one update
  double decide_seconds_total = 0;
  double decide_seconds_p99 = 0;
  std::map<Verdict, int64_t> verdicts;
};

// Of the slowest GPU's time in expert layers, what was served less than statically: the part.
double saved_part(const ReplayScore& score);

// Requires: the topology is possible and of the trace's shape.
using EachStep = std::function<void(const ReplayStep&)>;
ReplayScore replay(const TraceFile& trace, const Topology& topology, const RebalancerOptions& rules,
                   const VirtualTime& time, const EachStep& each_step);
ReplayScore replay(const TraceFile& trace, const Topology& topology, const EngineOptions& engine,
                   const VirtualTime& time, const EachStep& each_step);

}  // namespace eplbd
