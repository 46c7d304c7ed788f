// The words of a decision: verdicts, reasons, and a placement as it is published.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/migration.h"
#include "core/placement.h"

namespace eplbd {

enum class Mode { observe, shadow, active };
std::string_view to_string(Mode mode);
std::optional<Mode> mode_from(std::string_view name);

// In the order in which they are tested; the label values of eplbd_decisions_total{verdict}.
enum class Verdict {
  observing,
  paused,
  no_counts,
  too_few_tokens,
  topology_mismatch,
  applying,
  apply_failed,
  cooling_down,
  balanced,
  rate_limited,
  no_better,
  gain_too_small,
  invalid_candidate,
  update,
  would_update
};
inline constexpr int kVerdicts = 15;
std::string_view to_string(Verdict verdict);

enum class UpdateReason { initial, threshold, requested, imported, rollback, recovered, gpu };
inline constexpr int kUpdateReasons = 7;
std::string_view to_string(UpdateReason reason);
std::optional<UpdateReason> update_reason_from(std::string_view name);

// A placement as published: what a placement message, the state file and the API say.
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
};

// One answer to "is the placement in force still good enough?", with what it was decided from.
struct Decision {
  Verdict verdict = Verdict::no_counts;
  double imbalance = 0;        // of the placement in force, now; 0: no tokens
  double worst_layer = 0;      // imbalance of the layer where it is highest
  double imbalance_after = 0;  // of the candidate; 0: none was made
  double tokens = 0;           // in the window
  double tokens_per_gpu_step = 0;
  int64_t moves = 0;
  int64_t worst_gpu_moves = 0;
  bool solved = false;                    // the balancer ran
  std::string detail;                     // a sentence for people, with the numbers
  std::optional<PlacementUpdate> update;  // verdict update (publish it), would_update (do not)
  bool publish_again = false;             // the placement that was not applied is due once more
};

}  // namespace eplbd
