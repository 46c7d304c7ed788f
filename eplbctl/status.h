// What a running daemon does and is set to: `eplbctl status`, `watch`, `mode` and `gpu`.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "eplbctl/daemon_client.h"

namespace eplbd {

struct StatusOptions {
  DaemonAddress daemon;
  bool json = false;
  double every_seconds = 1;  // watch
};

int run_status(const StatusOptions& options);  // 1 when waiting or degraded
int run_watch(const StatusOptions& options);   // until a signal or q
int run_mode(const StatusOptions& options);    // which it is
int run_gpus(const StatusOptions& options);    // which are down

}  // namespace eplbd
