// What `eplbctl replay` runs side by side: ways to balance, a row each, and what came of them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "config/config.h"
#include "eplbctl/replay.h"

namespace eplbd {

struct ReplayRow {
  std::string name;
  std::variant<RebalancerOptions, EngineOptions> way;
  ReplayScore score = {};
  std::vector<ReplayStep> timeline = {};

  const EngineOptions* engine() const { return std::get_if<EngineOptions>(&way); }
};

// The configuration's rules, or the defaults, with the flags over them; mode active.
RebalancerOptions rules_of(const ReplayOptions& options, const Config& config);

// What an item of --compare is: a policy, engine:NAME... or a configuration file. Throws
// UsageError.
ReplayRow row_of(const std::string& item, const ReplayOptions& options, const Config& config);

// Of --compare; without items every policy, and vLLM's way.
std::vector<ReplayRow> rows_to_compare(const ReplayOptions& options, const Config& config);

// The usual engine beside ours: as vLLM ships it.
EngineOptions usual_engine();

// Fills the score and the timeline, and shows how far it is.
void run_row(const TraceFile& trace, const Topology& topology, const VirtualTime& time,
             ReplayRow& row);

// In a sentence: what it would have saved, by what, at what price.
std::string summary_of(const ReplayRow& row, const ReplayOptions& options);
// The same of ours (incremental, else the first) beside an engine among them.
std::string summary_of(const std::vector<ReplayRow>& rows, const ReplayOptions& options);

// Seconds in which the GPU that receives most fetches weights, over all updates; 0: no price.
double transfer_seconds(const ReplayScore& score, const TransferPrice& price);
// The part that is saved of the slowest GPU's expert time, less those seconds: if expert time were
// all the time, and each fetch stalled it.
double net_part(const ReplayScore& score, const ReplayOptions& options);

}  // namespace eplbd
