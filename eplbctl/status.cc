// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/status.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "eplbctl/status_view.h"

namespace eplbd {

using nlohmann::json;

int run_status(const StatusOptions& options) {
  const json status = DaemonClient(options.daemon).get("/api/v1/status");
  std::cout << (options.json ? status.dump() + "\n" : status_text(status));
  return status.at("health").get<std::string>() == "healthy" ? 0 : 1;
}

int run_mode(const StatusOptions& options) {
  const json status = DaemonClient(options.daemon).get("/api/v1/status");
  const std::string mode = status.at("mode");
  const std::string configured = status.at("mode_configured");
  if (options.json) {
    std::cout << json{{"mode", mode}, {"mode_configured", configured}}.dump() << '\n';
  } else if (mode == configured) {
    std::cout << mode << ", as configured\n";
  } else {
    std::cout << mode << ", as ordered; the configuration says " << configured
              << " (eplbctl mode config: as configured)\n";
  }
  return 0;
}

int run_gpus(const StatusOptions& options) {
  const json status = DaemonClient(options.daemon).get("/api/v1/status");
  const int gpus = status.at("topology").at("gpus");
  const json told = {{"gpus", gpus},
                     {"gpus_down", status.at("gpus_down")},
                     {"gpus_lost", status.at("gpus_lost")},
                     {"gpus_empty", status.at("gpus_empty")}};
  if (options.json) {
    std::cout << told.dump() << '\n';
    return 0;
  }
  const auto holds = [&](const char* key, const json& gpu) {
    return std::find(told[key].begin(), told[key].end(), gpu) != told[key].end();
  };
  std::cout << "GPUs 0 to " << gpus - 1
            << (told["gpus_down"].empty() ? ", none of them down\n" : "\n");
  for (const json& gpu : told["gpus_down"]) {
    std::cout << "GPU " << gpu << ": "
              << (holds("gpus_lost", gpu)    ? "lost"
                  : holds("gpus_empty", gpu) ? "empty, as the group reports"
                                             : "drained")
              << "; eplbctl gpu restore " << gpu << " takes it back in\n";
  }
  return 0;
}

}  // namespace eplbd
