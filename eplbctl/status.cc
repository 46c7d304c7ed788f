// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/status.h"

#include <iostream>
#include <nlohmann/json.hpp>

#include "eplbctl/status_view.h"

namespace eplbd {

int run_status(const StatusOptions& options) {
  const nlohmann::json status = DaemonClient(options.daemon).get("/api/v1/status");
  std::cout << (options.json ? status.dump() + "\n" : status_text(status));
  return status.at("health").get<std::string>() == "healthy" ? 0 : 1;
}

}  // namespace eplbd
