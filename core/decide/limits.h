// What an update may cost, what the last hour's leave of it, and what it must gain for that.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "core/balance/balancer.h"
#include "core/decide/answer.h"
#include "core/decide/situation.h"
#include "core/model/time.h"

namespace eplbd {

inline constexpr double kHourSeconds = 3600;

// In the hour that ends now.
struct SpentInHour {
  int64_t updates = 0;
  int64_t moves = 0;
};
SpentInHour spent_in_hour(const Situation& situation, TimePoint now);

MoveBudget budget_of_an_update(const LimitOptions& limits);

// Makes `budget` what the hour leaves of it.
Rule check_limits(const Situation& situation, TimePoint now, MoveBudget& budget);
// Until they allow another update; 0: they do.
double seconds_to_limits(const Situation& situation, TimePoint now);

// What an update must gain now. trigger.min_gain while little of the hour's budget is spent; the
// less is left, the more, so that what comes later and gains more finds some left. Within the
// cooldown, where only a jump is answered, far more.
double least_gain(const Situation& situation, TimePoint now);
// Of that, what the budget asks for.
double paced_gain(const Situation& situation, TimePoint now);
// Why it is more than trigger.min_gain, as the end of a sentence; empty: it is not.
std::string why_so_much(const Situation& situation, TimePoint now);

// What the group does wrong is mended once whatever the limits are: it cannot serve, or nobody
// knows by what it serves; `bound` is nothing then. A group that goes on doing it must not make us
// publish at its pace: the next time within the limits, and after a pause that doubles.
Rule check_forced(const Situation& situation, TimePoint now, std::optional<MoveBudget>& bound);

// What the limits leave for moves beyond those that must be.
MoveBudget budget_beyond(const Situation& situation, TimePoint now);

}  // namespace eplbd
