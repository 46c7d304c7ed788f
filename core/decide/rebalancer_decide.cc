// The rules: from reports and a window to one verdict.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "core/decide/number.h"
#include "core/decide/rebalancer.h"

namespace eplbd {
namespace {

// A map that the group was once found to run, which nobody can be told to apply.
bool is_unpublishable(const Topology& topology, const PlacementUpdate& update) {
  if (update.base != update.id) return false;  // one of ours
  PlacementRules rules;
  rules.gpus_down = update.gpus_down;
  rules.allow_duplicates = true;
  return find_violation(topology, update.placement, rules).has_value();
}

// A search in vain is not repeated at every tick; unless the imbalance grew by what is worth it.
// Where it did not grow by what was lacking, hardly more is to be found than before.
constexpr Duration kSearchAgain = std::chrono::milliseconds(900);
constexpr Duration kSearchMuchLater = std::chrono::seconds(5);

// What the group's reports force: at once the first time, then after a pause that doubles.
constexpr Duration kFirstPause = std::chrono::seconds(5);
constexpr int64_t kMostPauseDoublings = 9;  // about the hour that the limits look back
constexpr double kHourSeconds = 3600;

// The tighter of a limit (0: none) and what is left of another.
int64_t tighter(int64_t limit, int64_t left) { return limit == 0 ? left : std::min(limit, left); }

}  // namespace

// The GPUs that hold nothing are not the ones that are to hold nothing.
bool Rebalancer::gpus_to_change() const {
  const Placement& next = group_.pending() ? group_.published().placement : group_.in_force();
  for (int32_t gpu = 0; gpu < topology_.gpus; ++gpu) {
    const bool down = std::ranges::binary_search(gpus_down(), gpu);
    if (is_empty(topology_, next, gpu) != down) return true;
  }
  return false;
}

Measured Rebalancer::measure_now(Now now) const {
  return measure(topology_, group_.in_force(), loads(now), gpus_down());
}

Decision Rebalancer::begin(const Measured& measured, Now now) const {
  const auto& layers = measured.imbalance.layers;
  Decision decision;
  decision.now = now;
  decision.tokens = measured.tokens;
  decision.tokens_per_gpu_step = sources_.tokens_per_gpu_step(now.steady);
  decision.imbalance = measured.imbalance.whole_model;
  const auto worst = std::max_element(layers.begin(), layers.end());
  decision.worst_layer = *worst;
  decision.worst_layer_id = topology_.layer_id(static_cast<int32_t>(worst - layers.begin()));
  decision.publish_again =
      mode() == Mode::active && group_.due_again(options_.workers.apply_timeout, now.steady);
  return decision;
}

Rebalancer::Rule Rebalancer::check_reports(const Decision& decision) const {
  if (!sources_.any_live(decision.now.steady)) {
    return Answer{Verdict::no_counts, "no source sent counts within the last " +
                                          number(to_seconds(options_.workers.timeout)) + " s"};
  }
  const auto least = static_cast<double>(std::max<int64_t>(options_.trigger.min_tokens, 1));
  if (decision.tokens < least) {
    return Answer{Verdict::too_few_tokens,
                  number(decision.tokens) + " tokens in the window, fewer than " + number(least)};
  }
  if (decision.tokens_per_gpu_step <
      static_cast<double>(options_.trigger.min_tokens_per_gpu_step)) {
    return Answer{Verdict::too_few_tokens,
                  number(decision.tokens_per_gpu_step) +
                      " tokens of a layer a GPU and step, fewer than " +
                      std::to_string(options_.trigger.min_tokens_per_gpu_step)};
  }
  if (group_.topology_mismatch()) return Answer{Verdict::topology_mismatch, group_.mismatch()};
  return std::nullopt;
}

Rebalancer::Rule Rebalancer::check_trigger(const Decision& decision) const {
  const TimePoint now = decision.now.steady;
  if (group_.failed() || group_.overdue()) return Answer{Verdict::apply_failed, group_.failure()};
  if (group_.pending()) return Answer{Verdict::applying, "the group is applying the placement"};
  if (Rule rule = check_cooldown(now)) return rule;
  // A layer is enough: min_gain tells whether it is worth it. The whole model's is never above it.
  if (decision.worst_layer <= options_.trigger.imbalance) {
    return Answer{Verdict::balanced, "imbalance " + number(decision.imbalance) +
                                         ", of no layer above " +
                                         number(options_.trigger.imbalance) + ": layer " +
                                         std::to_string(decision.worst_layer_id) + " has most, " +
                                         number(decision.worst_layer)};
  }
  return std::nullopt;
}

// What an update may cost now.
Rebalancer::Rule Rebalancer::check_limits(const Decision& decision, MoveBudget& budget) const {
  const LimitOptions& limits = options_.limits;
  int64_t updates = 0;
  int64_t moves = 0;
  for (const auto& spent : state_.spent) {
    if (date(decision.now.steady) - spent.unix_seconds >= kHourSeconds) continue;
    ++updates;
    moves += spent.moves;
  }
  if (limits.updates_per_hour > 0 && updates >= limits.updates_per_hour) {
    return Answer{Verdict::rate_limited, std::to_string(updates) +
                                             " updates within an hour, the limit is " +
                                             std::to_string(limits.updates_per_hour)};
  }
  if (limits.moves_per_hour > 0) {
    if (moves >= limits.moves_per_hour) {
      return Answer{Verdict::rate_limited, std::to_string(moves) +
                                               " moves within an hour, the limit is " +
                                               std::to_string(limits.moves_per_hour)};
    }
    budget.moves = tighter(budget.moves, limits.moves_per_hour - moves);
  }
  return std::nullopt;
}

// The last search found nothing worth an update, and the load has hardly changed since.
Rebalancer::Rule Rebalancer::check_last_search(const Decision& decision) const {
  if (!in_vain_) return std::nullopt;
  const double rise = decision.imbalance - in_vain_->imbalance;
  const Duration pause = rise < in_vain_->lacking ? kSearchMuchLater : kSearchAgain;
  const bool held = rise < options_.trigger.min_gain && decision.now.steady - in_vain_->at < pause;
  return held ? Rule(in_vain_->answer) : std::nullopt;
}

// What the group does wrong is mended once whatever the limits are: it cannot serve, or nobody
// knows by what it serves. A group that goes on doing it must not make us publish at its pace.
Rebalancer::Rule Rebalancer::check_forced(const Decision& decision, MoveBudget& budget) const {
  if (decision.now.steady < hold_until_) {
    return Answer{Verdict::cooling_down, "just started: waiting for workers to say what they run"};
  }
  const double today = date(decision.now.steady);
  int64_t earlier = 0;
  double last = 0;
  for (const auto& spent : state_.spent) {
    if (!spent.forced || today - spent.unix_seconds >= kHourSeconds) continue;
    ++earlier;
    last = std::max(last, spent.unix_seconds);
  }
  if (earlier == 0) return std::nullopt;
  const Duration pause = std::max(kFirstPause, options_.trigger.cooldown) *
                         (int64_t{1} << std::min(earlier - 1, kMostPauseDoublings));
  if (today - last < to_seconds(pause)) {
    return Answer{Verdict::cooling_down, "mended " + std::to_string(earlier) +
                                             " times within an hour: not again within " +
                                             number(to_seconds(pause)) + " s of the last"};
  }
  budget = budget_of_an_update();
  return check_limits(decision, budget);
}

// What must change because the group runs what it should not, or by a name that is not its own.
Decision Rebalancer::force(const Measured& measured, Decision decision) const {
  MoveBudget budget;
  Rule rule = check_forced(decision, budget);
  if (!rule) rule = check_last_search(decision);
  if (rule) return answered(std::move(decision), std::move(*rule));
  decision.forced = true;
  const PlacementRules rules{GroupRule::none, nullptr, gpus_down(), false};
  if (group_.nameless() && !find_violation(topology_, group_.in_force(), rules)) {
    MeasuredCandidate same = consider(group_.in_force(), measured, decision);
    return update_to(std::move(same), measured, UpdateReason::recovered, std::move(decision));
  }
  const bool broken = group_.broken() || !gpus_to_change();
  const UpdateReason reason = broken ? UpdateReason::repaired : UpdateReason::gpu;
  return search(measured, {reason, budget, std::nullopt}, std::move(decision));
}

Decision Rebalancer::decide(Now now) const {
  const Measured measured = measure_now(now);
  Decision decision = begin(measured, now);
  const auto stop = [&](Answer answer) { return answered(std::move(decision), std::move(answer)); };
  if (mode() == Mode::observe) return stop({Verdict::observing, "mode is observe"});
  const bool may_change = mode() == Mode::active && !group_.topology_mismatch();
  if (may_change && gpus_ordered_ && gpus_to_change()) {
    return search(measured, {UpdateReason::gpu, {}, std::nullopt}, std::move(decision));
  }
  if (paused(now)) return stop({Verdict::paused, "paused by an operator"});
  const bool waits = group_.pending() && !is_unpublishable(topology_, group_.published());
  const bool wrong = !waits && (group_.pending() || group_.broken() || gpus_to_change());
  if (may_change && (wrong || group_.nameless())) return force(measured, std::move(decision));
  if (Rule rule = check_reports(decision)) return stop(std::move(*rule));
  if (Rule rule = check_trigger(decision)) return stop(std::move(*rule));
  MoveBudget budget = budget_of_an_update();
  if (Rule rule = check_limits(decision, budget)) return stop(std::move(*rule));
  if (Rule rule = check_last_search(decision)) return stop(std::move(*rule));
  return search(measured, {UpdateReason::threshold, budget, least_gain(now.steady)},
                std::move(decision));
}

}  // namespace eplbd
