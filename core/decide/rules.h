// From a situation to one verdict: the rules in the order of the verdicts, and what operators order
// past them. None of them changes anything.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "core/decide/decision.h"
#include "core/decide/situation.h"
#include "core/model/placement.h"
#include "core/model/time.h"

namespace eplbd {

Decision decide(const Situation& situation, Now now);

// Without the trigger's rules. Where it must refuse, there is no update and `detail` says why.
Decision plan_rebalance(const Situation& situation, Now now);
// To an earlier version (0: the initial placement); nothing: to the one before.
Decision plan_rollback(const Situation& situation, std::optional<uint64_t> version, Now now);
Decision plan_import(const Situation& situation, const Placement& placement, Now now);
// A group that grew or shrank to this shape: see core/decide/resize.h.
Decision plan_resize(const Situation& situation, Shape shape, Now now);
// What was published last, under the next name.
Decision plan_recovered(const Situation& situation, Now now);

}  // namespace eplbd
