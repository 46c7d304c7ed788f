// SPDX-License-Identifier: Apache-2.0
#include "core/decide/limits.h"

#include <algorithm>
#include <cmath>

#include "core/decide/cooldown.h"
#include "core/decide/number.h"

namespace eplbd {
namespace {

// What the group's reports force: at once the first time, then after a pause that doubles.
constexpr Duration kFirstPause = std::chrono::seconds(5);
constexpr int64_t kMostPauseDoublings = 9;  // about the hour that the limits look back

// trigger.min_gain is what an update is worth at the least; so many times that is far more.
constexpr double kFarMore = 10;

bool counts(const Situation& situation, const RebalancerState::Spent& spent, TimePoint now) {
  return situation.date(now) - spent.unix_seconds < kHourSeconds;
}

bool reached(int64_t spent, int64_t limit) { return limit > 0 && spent >= limit; }

double part(int64_t spent, int64_t limit) {
  return limit > 0 ? static_cast<double>(spent) / static_cast<double>(limit) : 0;
}

// Of the budget that is nearer to its end.
double spent_part(const Situation& situation, TimePoint now) {
  const LimitOptions& limits = situation.options.limits;
  const SpentInHour hour = spent_in_hour(situation, now);
  return std::max(part(hour.updates, limits.updates_per_hour),
                  part(hour.moves, limits.moves_per_hour));
}

// The tighter of a limit (0: none) and what is left of another.
int64_t tighter(int64_t limit, int64_t left) { return limit == 0 ? left : std::min(limit, left); }

Rule beyond(int64_t spent, int64_t limit, const char* what) {
  if (!reached(spent, limit)) return std::nullopt;
  return Answer{Verdict::rate_limited, std::to_string(spent) + " " + what +
                                           " within an hour, the limit is " +
                                           std::to_string(limit)};
}

}  // namespace

SpentInHour spent_in_hour(const Situation& situation, TimePoint now) {
  SpentInHour hour;
  for (const auto& spent : situation.state.spent) {
    if (!counts(situation, spent, now)) continue;
    ++hour.updates;
    hour.moves += spent.moves;
  }
  return hour;
}

MoveBudget budget_of_an_update(const LimitOptions& limits) {
  return {limits.max_moves, limits.max_moves_per_gpu, limits.max_layers};
}

Rule check_limits(const Situation& situation, TimePoint now, MoveBudget& budget) {
  const LimitOptions& limits = situation.options.limits;
  const auto [updates, moves] = spent_in_hour(situation, now);
  if (Rule rule = beyond(updates, limits.updates_per_hour, "updates")) return rule;
  if (Rule rule = beyond(moves, limits.moves_per_hour, "moves")) return rule;
  if (limits.moves_per_hour > 0) {
    budget.moves = tighter(budget.moves, limits.moves_per_hour - moves);
  }
  return std::nullopt;
}

double seconds_to_limits(const Situation& situation, TimePoint now) {
  const LimitOptions& limits = situation.options.limits;
  const double today = situation.date(now);
  SpentInHour hour = spent_in_hour(situation, now);
  double allowed = today;
  for (const auto& oldest : situation.state.spent) {
    if (!reached(hour.updates, limits.updates_per_hour) &&
        !reached(hour.moves, limits.moves_per_hour)) {
      break;
    }
    if (!counts(situation, oldest, now)) continue;
    --hour.updates;
    hour.moves -= oldest.moves;
    allowed = oldest.unix_seconds + kHourSeconds;
  }
  return std::max(allowed - today, 0.0);
}

// The threshold of online knapsack (Zhou, Chakrabarty, Lukose 2008): where what offers itself gains
// between 1 and R times the least, e^((1 + ln R) x spent - 1) times the least is to be asked for,
// and no rule that does not know what comes does better against the worst that can.
double paced_gain(const Situation& situation, TimePoint now) {
  const double rise = (1 + std::log(kFarMore)) * spent_part(situation, now);
  return std::max(1.0, std::exp(rise - 1)) * situation.options.trigger.min_gain;
}

double least_gain(const Situation& situation, TimePoint now) {
  const double at_once = kFarMore * situation.options.trigger.min_gain;
  return cooling_down(situation, now) ? at_once : paced_gain(situation, now);
}

std::string why_so_much(const Situation& situation, TimePoint now) {
  if (cooling_down(situation, now)) return ", which a jump's answer must gain within the cooldown";
  if (paced_gain(situation, now) <= situation.options.trigger.min_gain) return "";
  return ", as " + number(100 * spent_part(situation, now)) + " % of the hour's budget is spent";
}

Rule check_forced(const Situation& situation, TimePoint now, std::optional<MoveBudget>& bound) {
  const double today = situation.date(now);
  int64_t earlier = 0;
  double last = 0;
  for (const auto& spent : situation.state.spent) {
    if (!spent.forced || !counts(situation, spent, now)) continue;
    ++earlier;
    last = std::max(last, spent.unix_seconds);
  }
  if (earlier == 0) return std::nullopt;
  const Duration pause = std::max(kFirstPause, situation.options.trigger.cooldown) *
                         (int64_t{1} << std::min(earlier - 1, kMostPauseDoublings));
  if (today - last < to_seconds(pause)) {
    return Answer{Verdict::cooling_down, "mended " + std::to_string(earlier) +
                                             " times within an hour: not again within " +
                                             number(to_seconds(pause)) + " s of the last"};
  }
  bound = budget_of_an_update(situation.options.limits);
  return check_limits(situation, now, *bound);
}

MoveBudget budget_beyond(const Situation& situation, TimePoint now) {
  MoveBudget budget = budget_of_an_update(situation.options.limits);
  const bool spent = check_limits(situation, now, budget).has_value();
  if (spent) budget.moves = 1;  // what must be is more already
  return budget;
}

}  // namespace eplbd
