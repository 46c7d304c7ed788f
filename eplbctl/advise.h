// `eplbctl advise`: how many redundant experts pay, by replaying a trace with more and more slots.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eplbctl/chart.h"
#include "eplbctl/replay.h"

namespace eplbd {

struct AdviseOptions {
  std::string trace;
  ShapeOptions shape;          // without slots
  std::vector<int32_t> slots;  // empty: the usual
  std::string config;          // the rules; empty: the defaults
  VirtualTime time;
  double expert_bytes = 0;  // of one expert of one layer; 0: not known
  std::string picture;      // an SVG file; empty: none
  bool json = false;
};

// Prints a table, or an object; returns the exit code.
int run_advise(const AdviseOptions& options);

struct SlotsScore {
  int32_t slots = 0;
  ReplayScore score = {};
};

// From as few slots as hold every expert to about twice as many, whole ones a GPU.
std::vector<int32_t> usual_slots(int32_t logical_experts, int32_t gpus);

// `topology` with each of these slots, ascending. Throws UsageError where one is not possible.
std::vector<SlotsScore> sweep_slots(const TraceFile& trace, const Topology& topology,
                                    std::span<const int32_t> slots, const RebalancerOptions& rules,
                                    const VirtualTime& time);

// The index after which a slot more buys clearly less: where balancedness is furthest above the
// straight line from the first to the last ("knee" as in Satopaa et al., Kneedle, 2011). The first
// when slots buy less than a hundredth, the last when there is no such bend. Requires: one at
// least.
size_t knee_of(std::span<const SlotsScore> scores);

Chart slots_chart(std::span<const SlotsScore> scores);

}  // namespace eplbd
