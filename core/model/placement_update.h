// A placement as it is published: what a placement message, the state file and the API say.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/model/migration.h"
#include "core/model/names.h"
#include "core/model/placement.h"

namespace eplbd {

enum class UpdateReason {
  initial,
  threshold,
  requested,
  imported,
  rollback,
  recovered,
  gpu,
  repaired,  // the group reported a map that breaks a rule
  resized
};
constexpr auto names(UpdateReason) {
  return std::to_array<std::string_view>({"initial", "threshold", "requested", "imported",
                                          "rollback", "recovered", "gpu", "repaired", "resized"});
}

struct PlacementUpdate {
  PlacementId id;
  PlacementId base;         // what it was planned from
  double unix_seconds = 0;  // of the decision
  UpdateReason reason = UpdateReason::initial;
  Placement placement;
  std::vector<int32_t> changed_layers;  // best gain first
  std::vector<Move> moves;
  std::vector<int32_t> gpus_down;
  double imbalance_before = 0;  // predicted on the load window; 0: not known
  double imbalance_after = 0;
  bool operator==(const PlacementUpdate&) const = default;
};

}  // namespace eplbd
