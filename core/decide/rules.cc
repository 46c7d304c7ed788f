// SPDX-License-Identifier: Apache-2.0
#include "core/decide/rules.h"

#include <algorithm>
#include <utility>

#include "core/decide/cooldown.h"
#include "core/decide/limits.h"
#include "core/decide/number.h"
#include "core/decide/resize.h"
#include "core/decide/search.h"
#include "core/model/imbalance.h"

namespace eplbd {
namespace {

// A search in vain is not repeated at every tick; unless the imbalance grew by what is worth it.
// Where it did not grow by what was lacking, hardly more is to be found than before.
constexpr Duration kSearchAgain = std::chrono::milliseconds(900);
constexpr Duration kSearchMuchLater = std::chrono::seconds(5);

// Whether the group can be told to apply what is published: not where it has an empty GPU and the
// group no longer says that it can run so, nor a map that it was once found to run, if broken.
bool is_runnable(const Topology& topology, const GroupState& group) {
  const PlacementUpdate& update = group.published();
  if (!update.gpus_down.empty() && !group.may_empty_gpus()) return false;
  if (update.base != update.id) return true;  // one of ours
  PlacementRules rules;
  rules.gpus_down = update.gpus_down;
  rules.allow_duplicates = true;
  return !find_violation(topology, update.placement, rules).has_value();
}

// The figures of the placement in force.
Decision begin(const Situation& situation, const Measured& measured, Now now) {
  const auto& layers = measured.imbalance.layers;
  const Duration apply_timeout = situation.options.workers.apply_timeout;
  Decision decision;
  decision.now = now;
  decision.tokens = measured.tokens;
  decision.tokens_per_gpu_step = situation.sources.tokens_per_gpu_step(now.steady);
  decision.imbalance = measured.imbalance.whole_model;
  const int32_t worst = worst_layer(layers).value_or(0);
  decision.worst_layer = layers[worst];
  decision.worst_layer_id = situation.topology.layer_id(worst);
  decision.seconds_to_next_update = std::max(to_seconds(cooldown_left(situation, now.steady)),
                                             seconds_to_limits(situation, now.steady));
  decision.publish_again =
      situation.mode() == Mode::active && situation.group.due_again(apply_timeout, now.steady);
  return decision;
}

Measured measure_now(const Situation& situation, Now now) {
  return measure(situation.topology, situation.group.in_force(), situation.loads(now.steady),
                 situation.gpus_down);
}

Rule check_reports(const Situation& situation, const Decision& decision) {
  const RebalancerOptions& options = situation.options;
  if (!situation.sources.any_live(decision.now.steady)) {
    return Answer{Verdict::no_counts, "no source sent counts within the last " +
                                          number(to_seconds(options.workers.timeout)) + " s"};
  }
  const auto least = static_cast<double>(std::max<int64_t>(options.trigger.min_tokens, 1));
  if (decision.tokens < least) {
    return Answer{Verdict::too_few_tokens,
                  number(decision.tokens) + " tokens in the window, fewer than " + number(least)};
  }
  const int64_t least_of_a_gpu = options.trigger.min_tokens_per_gpu_step;
  if (decision.tokens_per_gpu_step < static_cast<double>(least_of_a_gpu)) {
    return Answer{Verdict::too_few_tokens, number(decision.tokens_per_gpu_step) +
                                               " tokens of a layer a GPU and step, fewer than " +
                                               std::to_string(least_of_a_gpu)};
  }
  if (!situation.group.topology_mismatch()) return std::nullopt;
  return Answer{Verdict::topology_mismatch, situation.group.mismatch()};
}

Rule check_trigger(const Situation& situation, const Decision& decision) {
  const GroupState& group = situation.group;
  const double trigger = situation.options.trigger.imbalance;
  if (group.failed() || group.overdue()) return Answer{Verdict::apply_failed, group.failure()};
  if (group.pending()) return Answer{Verdict::applying, "the group is applying the placement"};
  if (Rule rule = check_cooldown(situation, decision.now.steady)) return rule;
  // A layer is enough: min_gain tells whether it is worth it. The whole model's is never above it.
  if (decision.worst_layer > trigger) return std::nullopt;
  return Answer{Verdict::balanced, "imbalance " + number(decision.imbalance) +
                                       ", of no layer above " + number(trigger) + ": layer " +
                                       std::to_string(decision.worst_layer_id) + " has most, " +
                                       number(decision.worst_layer)};
}

// The last search found nothing worth an update, and the load has hardly changed since.
Rule check_last_search(const Situation& situation, const Decision& decision) {
  if (!situation.in_vain) return std::nullopt;
  const auto& last = *situation.in_vain;
  const double rise = decision.imbalance - last.imbalance;
  const Duration pause = rise < last.lacking ? kSearchMuchLater : kSearchAgain;
  const bool held =
      rise < situation.options.trigger.min_gain && decision.now.steady - last.at < pause;
  return held ? Rule(last.answer) : std::nullopt;
}

// Of what reports force, whoever ordered nothing.
Rule check_before_forced(const Situation& situation, const Decision& decision,
                         std::optional<MoveBudget>& bound) {
  const TimePoint now = decision.now.steady;
  Rule rule = check_hold(situation, now);
  if (!rule) rule = check_forced(situation, now, bound);
  if (!rule) rule = check_last_search(situation, decision);
  return rule;
}

// Within `bound`, or whatever it costs.
Aim aim_of_what_must_be(const Situation& situation, UpdateReason reason, TimePoint now,
                        const std::optional<MoveBudget>& bound = {}) {
  return {reason, bound.value_or(budget_beyond(situation, now)), std::nullopt, !bound};
}

Decision resize_to(const Situation& situation, Shape shape, Now now,
                   const std::optional<MoveBudget>& bound = {}) {
  CarriedMap carried = carried_to(situation, shape);
  const auto next = in_shape(situation, carried, now);
  const Measured measured = measure_now(*next, now);
  Decision decision = begin(*next, measured, now);
  decision.carried = std::move(carried);
  const Aim aim = aim_of_what_must_be(situation, UpdateReason::resized, now.steady, bound);
  return search(*next, measured, aim, std::move(decision));
}

// The group is of another shape, and is to be planned for by itself.
Decision follow_shape(const Situation& situation, Decision decision) {
  const Shape shape = situation.group.carried()->shape;
  if (const auto why = refuses_shape(situation, shape, decision.now.steady)) {
    return answered(std::move(decision),
                    {Verdict::topology_mismatch, situation.group.mismatch() + ", but: " + *why});
  }
  std::optional<MoveBudget> bound;
  if (Rule rule = check_before_forced(situation, decision, bound)) {
    return answered(std::move(decision), std::move(*rule));
  }
  Decision resize = resize_to(situation, shape, decision.now, bound);
  resize.forced = true;
  return resize;
}

// What must change because the group runs what it should not, or by a name that is not its own.
Decision force(const Situation& situation, const Measured& measured, Decision decision) {
  const GroupState& group = situation.group;
  std::optional<MoveBudget> bound;
  if (Rule rule = check_before_forced(situation, decision, bound)) {
    return answered(std::move(decision), std::move(*rule));
  }
  decision.forced = true;
  const PlacementRules rules{GroupRule::none, nullptr, situation.gpus_down, false};
  if (group.nameless() && !find_violation(situation.topology, group.in_force(), rules)) {
    return update_to(situation, group.in_force(), measured, UpdateReason::recovered,
                     std::move(decision));
  }
  const bool broken = group.broken() || !situation.gpus_to_change();
  const UpdateReason reason = broken ? UpdateReason::repaired : UpdateReason::gpu;
  const Aim aim = aim_of_what_must_be(situation, reason, decision.now.steady, bound);
  return search(situation, measured, aim, std::move(decision));
}

Decision refused(const Situation& situation, Now now, std::string why) {
  return answered(begin(situation, measure_now(situation, now), now),
                  {Verdict::invalid_candidate, std::move(why)});
}

Decision plan_given(const Situation& situation, const Placement& placement, UpdateReason reason,
                    Now now) {
  if (reason != UpdateReason::recovered && situation.group.topology_mismatch()) {
    return refused(situation, now, situation.group.mismatch());
  }
  const PlacementRules rules{GroupRule::none, nullptr, situation.gpus_down, false};
  if (auto violation = find_violation(situation.topology, placement, rules)) {
    return refused(situation, now, std::move(*violation));
  }
  const Measured measured = measure_now(situation, now);
  return update_to(situation, keep_slots(situation.topology, situation.group.in_force(), placement),
                   measured, reason, begin(situation, measured, now));
}

}  // namespace

Decision decide(const Situation& situation, Now now) {
  const GroupState& group = situation.group;
  const Measured measured = measure_now(situation, now);
  Decision decision = begin(situation, measured, now);
  const auto stop = [&](Answer answer) { return answered(std::move(decision), std::move(answer)); };
  if (situation.mode() == Mode::observe) return stop({Verdict::observing, "mode is observe"});
  const bool may_change = situation.mode() == Mode::active && !group.topology_mismatch();
  if (may_change && situation.gpus_ordered && situation.gpus_to_change()) {
    const Aim aim = aim_of_what_must_be(situation, UpdateReason::gpu, now.steady);
    return search(situation, measured, aim, std::move(decision));
  }
  if (situation.paused(now.steady)) return stop({Verdict::paused, "paused by an operator"});
  const bool follows = situation.options.follow_shape && situation.mode() == Mode::active;
  if (follows && group.carried() != nullptr) return follow_shape(situation, std::move(decision));
  const bool waits = group.pending() && is_runnable(situation.topology, group);
  const bool wrong = !waits && (group.pending() || group.broken() || situation.gpus_to_change());
  if (may_change && (wrong || group.nameless())) {
    return force(situation, measured, std::move(decision));
  }
  if (Rule rule = check_reports(situation, decision)) return stop(std::move(*rule));
  if (Rule rule = check_trigger(situation, decision)) return stop(std::move(*rule));
  MoveBudget budget = budget_of_an_update(situation.options.limits);
  if (Rule rule = check_limits(situation, now.steady, budget)) return stop(std::move(*rule));
  if (Rule rule = check_last_search(situation, decision)) return stop(std::move(*rule));
  return search(situation, measured,
                {UpdateReason::threshold, budget, least_gain(situation, now.steady)},
                std::move(decision));
}

Decision plan_rebalance(const Situation& situation, Now now) {
  const Measured measured = measure_now(situation, now);
  Decision decision = begin(situation, measured, now);
  if (Rule rule = check_reports(situation, decision)) {
    return answered(std::move(decision), std::move(*rule));
  }
  return search(situation, measured,
                {UpdateReason::requested, budget_of_an_update(situation.options.limits), 0.0},
                std::move(decision));
}

Decision plan_rollback(const Situation& situation, std::optional<uint64_t> version, Now now) {
  const PlacementLog& log = situation.state.placements;
  if (!version && log.history.empty()) {
    return refused(situation, now, "there is no earlier placement");
  }
  const uint64_t wanted = version ? *version : log.history.front().id.version;
  const std::string name = "version " + std::to_string(wanted);
  const PlacementUpdate* const earlier = log.find(wanted);
  if (!earlier && wanted != 0) {
    std::string kept = "0";
    for (const PlacementUpdate& update : log.history) {
      if (update.id.version != 0) kept += ", " + std::to_string(update.id.version);
    }
    return refused(situation, now, name + " is not kept; these are: " + kept);
  }
  if ((earlier ? earlier->gpus_down : std::vector<int32_t>{}) != situation.gpus_down) {
    return refused(situation, now,
                   name +
                       " was made when other GPUs were down: drain or restore those first, "
                       "or take another version");
  }
  return plan_given(situation, earlier ? earlier->placement : log.initial, UpdateReason::rollback,
                    now);
}

Decision plan_import(const Situation& situation, const Placement& placement, Now now) {
  return plan_given(situation, placement, UpdateReason::imported, now);
}

Decision plan_resize(const Situation& situation, Shape shape, Now now) {
  if (auto why = refuses_shape(situation, shape, now.steady)) {
    return refused(situation, now, std::move(*why));
  }
  return resize_to(situation, shape, now);
}

Decision plan_recovered(const Situation& situation, Now now) {
  const PlacementUpdate& published = situation.state.placements.published;
  if (published.id == PlacementId{}) {
    return refused(situation, now, "no placement was published yet");
  }
  return plan_given(situation, published.placement, UpdateReason::recovered, now);
}

}  // namespace eplbd
