// `eplbctl check-worker`: for whoever connects a worker. What arrives at a running daemon, message
// by message: what is right, what is wrong and what was expected.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "eplbctl/daemon_client.h"

namespace eplbd {

struct CheckWorkerOptions {
  DaemonAddress daemon;
  bool json = false;  // an object a message
  double for_seconds = 60;
};

// Until the time is over or a signal; 0 where counts came and the last message of each was right.
int run_check_worker(const CheckWorkerOptions& options);

}  // namespace eplbd
