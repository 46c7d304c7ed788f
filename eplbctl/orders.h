// What operators order: rebalance, pause, resume, mode, rollback, resize, reload, gpu. One order
// each, over the control socket; docs/control.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "eplbctl/daemon_client.h"

namespace eplbd {

struct OrderOptions {
  DaemonAddress daemon;
  std::string path;         // /v1/pause; empty: none, tell the mode
  std::string body = "{}";  // a JSON object
  bool json = false;        // print the answer as it is
};

// Prints what came of it; 1 when it was refused.
int run_order(const OrderOptions& options);

// The bodies. `seconds` 0: until resumed; `mode` "config": the configuration's again; `version`
// negative: the one before.
std::string rebalance_body(bool dry_run);
std::string pause_body(double seconds);
std::string mode_body(const std::string& mode);
std::string rollback_body(int64_t version, bool dry_run);
std::string resize_body(int32_t gpus, int32_t slots, bool dry_run);
std::string gpu_body(int32_t gpu, const std::string& action);

}  // namespace eplbd
