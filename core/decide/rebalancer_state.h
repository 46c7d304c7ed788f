// What must outlive the process: see daemon/store/state_file.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "core/decide/decision.h"
#include "core/model/placement_log.h"

namespace eplbd {

struct RebalancerState {
  std::optional<Shape> resized;  // of all maps here; nothing: the configured one
  PlacementLog placements;
  struct Spent {
    double unix_seconds = 0;
    int64_t moves = 0;
    bool forced = false;  // by what the group reported
    bool operator==(const Spent&) const = default;
  };
  std::deque<Spent> spent;   // updates of the last hour, oldest first
  std::optional<Mode> mode;  // set by an operator; nothing: the configuration's
  bool paused = false;
  double paused_until_unix_seconds = 0;  // 0: until resumed
  struct Turn {
    double unix_seconds = 0;  // until then what is adopted waits
    double pause_seconds = 0;
    bool operator==(const Turn&) const = default;
  };
  Turn adopted;
  std::vector<int32_t> gpus_down;   // as operators want it
  std::vector<int32_t> gpus_lost;   // of those, no source of weights either
  std::vector<int32_t> gpus_empty;  // as the group reports them
  bool operator==(const RebalancerState&) const = default;
};

}  // namespace eplbd
