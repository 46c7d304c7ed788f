// `eplbctl record`: what a deployment's counts are, as a trace that replay reads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "eplbctl/daemon_client.h"

namespace eplbd {

struct RecordOptions {
  DaemonAddress daemon;
  std::string file;          // .npy, uint32 [steps, layers, logical_experts]
  double every_seconds = 1;  // a step
  double for_seconds = 0;    // 0: until a signal
  double keep_seconds = 0;   // a ring of the last so many; 0: everything
};

// A step for every interval: time that a daemon was away is filled with what came meanwhile, spread
// evenly, or with zeros where it restarted. Ends well on SIGINT and SIGTERM.
int run_record(const RecordOptions& options);

}  // namespace eplbd
