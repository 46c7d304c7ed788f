// What `eplbctl load` shows while it runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "core/model/placement.h"

namespace eplbd {

// Of the daemon's status; nothing: it does not say (yet).
struct DaemonFigures {
  std::optional<double> imbalance;
  std::optional<double> decide_seconds;  // mean
  std::optional<double> lost;            // counts messages
  std::optional<double> rejected;
};
DaemonFigures daemon_figures(const nlohmann::json& status);

// Why a simulated fleet must not publish to the daemon of this status: it has workers of its own,
// or a placement that such left. Empty: nobody is there.
std::string who_is_there(const nlohmann::json& status, const std::string& deployment);

struct LoadFigures {
  std::string title;
  double seconds = 0;            // since the start
  double imbalance_initial = 0;  // of the newest counts, had the initial placement been kept
  double imbalance_now = 0;      // of the newest counts, under the placement that serves
  PlacementId running;
  std::string status;
  int64_t updates = 0;
  int64_t moves = 0;
  int64_t messages = 0;
  double apply_seconds = 0;
  bool heard = false;
  DaemonFigures daemon;
};

std::string load_header();                          // of the lines
std::string load_line(const LoadFigures& figures);  // a line a second, for logs and pipes
std::string load_json(const LoadFigures& figures);  // the same as an object
std::string load_screen(const LoadFigures& figures, int columns);  // redrawn on a terminal

}  // namespace eplbd
