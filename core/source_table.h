// Who sends counts: epochs, sequences, baselines of running counters, and which sources are live.
// Turns a report into tokens that may be added to a window, or says why not.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/time.h"
#include "core/topology.h"
#include "core/worker_report.h"

namespace eplbd {

// What became of a counts report.
struct IngestResult {
  std::optional<RejectReason> rejected;  // dropped whole
  bool duplicate = false;                // dropped, harmless
  bool restarted = false;                // a larger epoch
  bool conflict = false;                 // two senders under one name
  bool baseline = false;                 // accepted, but counts from here on only
  uint64_t lost = 0;                     // messages missing before this one
  uint64_t tokens = 0;                   // added to the window
};

struct Source {
  std::string name;
  uint64_t epoch = 0;
  uint64_t sequence = 0;       // newest
  double ts = 0;               // newest, the worker's clock
  PlacementId running;
  TimePoint heard;
  uint64_t messages = 0;
  uint64_t lost = 0;
  double steps = 0;            // decayed with the window, scaled; see SourceTable::steps
};

}  // namespace eplbd
