// `eplbctl history`: every placement that the daemon keeps, over its restarts too; what a rollback
// can go back to.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "eplbctl/daemon_client.h"

namespace eplbd {

struct HistoryOptions {
  DaemonAddress daemon;
  bool json = false;
};

int run_history(const HistoryOptions& options);

}  // namespace eplbd
