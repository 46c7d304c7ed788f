// `eplbctl replay --report FILE.html`: what a trace would have come to, as one page that needs
// nothing else: pictures of imbalance over time, balance against moves, layers and slots.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "eplbctl/replay_rows.h"

namespace eplbd {

// `rows` have run. An engine's way and ours are added where they lack, and what else the pictures
// need is replayed. Throws std::runtime_error where the file cannot be written.
void write_report(const ReplayOptions& options, const Config& config, const TraceFile& trace,
                  const Topology& topology, std::vector<ReplayRow> rows);

}  // namespace eplbd
