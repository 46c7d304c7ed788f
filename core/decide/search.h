// From a wish for another placement to an update: searched, judged, and only then made.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "core/balance/balancer.h"
#include "core/decide/candidate.h"
#include "core/decide/decision.h"
#include "core/decide/situation.h"
#include "core/model/placement.h"
#include "core/model/placement_update.h"

namespace eplbd {

// What a search is for.
struct Aim {
  UpdateReason reason;
  MoveBudget budget;
  std::optional<double> least_gain;  // nothing: it must be, whatever it gains
  bool whatever_it_costs = false;    // the budget is for what is done beyond what must be
};

// Runs the balancer; the decision says what becomes of its proposal.
Decision search(const Situation& situation, const Measured& measured, const Aim& aim,
                Decision decision);

// The decision as an update to this placement, unjudged.
Decision update_to(const Situation& situation, Placement placement, const Measured& measured,
                   UpdateReason reason, Decision decision);

}  // namespace eplbd
