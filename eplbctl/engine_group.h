// A group of workers whose engine balances itself, in virtual time, as engines ship it: at a fixed
// interval it rebuilds every layer from scratch, from what it counted in a window of steps, with
// DeepSeek's algorithm. The intervals are vLLM's (EPLBConfig: step_interval, window_size) and
// SGLang's (--eplb-rebalance-num-iterations, from as many steps); vLLM's first comes after a
// quarter.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/balance/scratch_policy.h"
#include "eplbctl/virtual_group.h"

namespace eplbd {

struct EngineOptions {
  std::string name;         // vllm, sglang
  int64_t interval = 0;     // steps of the engine between two rebuilds
  int64_t window = 0;       // whose counts it takes
  double pass_seconds = 0;  // of its step, a forward pass; 0: a step of the trace
  bool operator==(const EngineOptions&) const = default;
};

// engine:NAME[,interval=N][,window=N][,pass=DURATION], else nothing. Throws UsageError where that
// is what it begins with, but not how it goes on.
std::optional<EngineOptions> parse_engine(const std::string& text);

class EngineGroup {
 public:
  EngineGroup(const Topology& topology, const EngineOptions& options, const VirtualTime& time);

  // The next step's counts [layers, logical_experts]. A rebuild is decided at its end; while it is
  // being applied none is.
  VirtualGroup::Step step(std::span<const uint32_t> counts);

  PlacementId running() const { return running_; }
  Duration half_life() const { return {}; }

 private:
  VirtualGroup::Decided rebuild();

  Topology topology_;
  std::unique_ptr<ScratchPolicy> policy_;
  int64_t interval_steps_;  // of the trace
  int64_t first_steps_;     // until the first rebuild
  int64_t window_steps_;
  double apply_steps_;
  int64_t steps_ = 0;
  std::deque<std::vector<uint32_t>> window_;
  std::vector<double> sum_;  // [layers, logical_experts] of the window
  Placement serving_;
  Placement next_;
  PlacementId running_;
  std::optional<double> serves_from_;  // steps; a rebuild is being applied until then
};

}  // namespace eplbd
