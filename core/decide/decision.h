// The words of a decision: modes and verdicts.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/model/names.h"
#include "core/model/placement_update.h"
#include "core/model/time.h"
#include "core/workers/reported_map.h"

namespace eplbd {

enum class Mode { observe, shadow, active };
constexpr auto names(Mode) {
  return std::to_array<std::string_view>({"observe", "shadow", "active"});
}

// In the order in which they are tested, but that a candidate which is not valid is not judged. The
// label values of eplbd_decisions_total{verdict}.
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
constexpr auto names(Verdict) {
  return std::to_array<std::string_view>(
      {"observing", "paused", "no_counts", "too_few_tokens", "topology_mismatch", "applying",
       "apply_failed", "cooling_down", "balanced", "rate_limited", "no_better", "gain_too_small",
       "invalid_candidate", "update", "would_update"});
}

// One answer to "is the placement in force still good enough?", with what it was decided from.
struct Decision {
  Now now;  // when it was made; what follows from it bears this date
  Verdict verdict = Verdict::no_counts;
  double imbalance = 0;        // of the placement in force, now; 0: no tokens
  double worst_layer = 0;      // imbalance of the layer where it is highest
  int32_t worst_layer_id = 0;  // the model's own number of that layer
  double imbalance_after = 0;  // of the candidate; 0: none was made
  double gain = 0;             // that is expected of the candidate
  double tokens = 0;           // in the window
  double tokens_per_gpu_step = 0;
  int64_t moves = 0;
  int64_t worst_gpu_moves = 0;
  // Until the cooldown and the limits of an hour allow another update, whatever else speaks against
  // it; 0: they do.
  double seconds_to_next_update = 0;
  bool solved = false;                    // the balancer ran
  std::string detail;                     // a sentence for people, with the numbers
  std::optional<PlacementUpdate> update;  // verdict update (publish it), would_update (do not)
  std::optional<CarriedMap> carried;      // of a resize: the update is of this map's shape
  bool forced = false;                    // by what the group reports, not by the trigger
  bool publish_again = false;             // the placement that was not applied is due once more
};

}  // namespace eplbd
