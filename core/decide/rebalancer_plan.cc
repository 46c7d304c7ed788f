// From a wish for another placement to an update: searched, judged, and only then made.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "core/decide/number.h"
#include "core/decide/rebalancer.h"

namespace eplbd {
namespace {

// Of one search: some 60 ms on 72 GPUs. What a jump leaves undone is for the next one.
constexpr int64_t kMostSteps = 8000;

}  // namespace

Decision Rebalancer::answered(Decision decision, Answer answer) {
  decision.verdict = answer.verdict;
  decision.detail = std::move(answer.detail);
  return decision;
}

MoveBudget Rebalancer::budget_of_an_update() const {
  const LimitOptions& limits = options_.limits;
  return {limits.max_moves, limits.max_moves_per_gpu, limits.max_layers};
}

// Runs the balancer, and says what is to become of its proposal.
Decision Rebalancer::search(const Measured& measured, const Aim& aim, Decision decision) const {
  decision.solved = true;
  Proposal proposal;
  try {
    proposal = propose(measured, aim.budget);
  } catch (const std::invalid_argument& error) {
    return answered(std::move(decision), {Verdict::invalid_candidate, error.what()});
  }
  const PlacementRules rules{proposal.groups, &group_.in_force(), gpus_down(), false};
  if (auto violation = find_violation(topology_, proposal.placement, rules)) {
    return answered(std::move(decision), {Verdict::invalid_candidate, std::move(*violation)});
  }
  MeasuredCandidate candidate = consider(std::move(proposal.placement), measured, decision);
  const double fall = decision.imbalance - decision.imbalance_after;
  decision.gain = std::min(fall, proposal.expected_gain.value_or(fall));
  if (Rule rule = judge(candidate, aim, decision)) {
    return answered(std::move(decision), std::move(*rule));
  }
  return update_to(std::move(candidate), measured, aim.reason, std::move(decision));
}

Proposal Rebalancer::propose(const Measured& measured, const MoveBudget& budget) const {
  Outlook outlook{.loads = measured.loads,
                  .steady_loads = {},
                  .error = window_.forecast_error(),
                  .newest_share = window_.newest_share()};
  std::vector<double> steady(measured.loads.size());
  if (window_.read_steady(steady)) outlook.steady_loads = steady;
  return balancer_->propose(
      {.topology = topology_,
       .in_force = group_.in_force(),
       .outlook = outlook,
       .gpus_down = gpus_down(),
       .budget = budget,
       .steps = kMostSteps,
       .settle = options_.trigger.settle,
       .min_gain = options_.trigger.min_gain,
       .apply_seconds = std::min(apply_seconds_, to_seconds(options_.workers.apply_timeout))});
}

// The candidate beside the placement in force; its figures go into the decision, whatever comes.
MeasuredCandidate Rebalancer::consider(Placement placement, const Measured& measured,
                                       Decision& decision) const {
  MeasuredCandidate candidate =
      measure(topology_, group_.in_force(), std::move(placement), measured, gpus_down());
  decision.imbalance_after = candidate.imbalance.whole_model;
  decision.moves = candidate.moves.total;
  decision.worst_gpu_moves = candidate.moves.worst_gpu;
  return candidate;
}

// Why the candidate is not to be published, if it is not.
Rebalancer::Rule Rebalancer::judge(const MeasuredCandidate& candidate, const Aim& aim,
                                   const Decision& decision) const {
  if (aim.least_gain) {
    if (candidate.placement == group_.in_force() || decision.gain <= 0) {
      return Answer{Verdict::no_better,
                    "no better placement than imbalance " + number(decision.imbalance)};
    }
    if (decision.gain < *aim.least_gain) {
      return Answer{Verdict::gain_too_small, "a gain of " + number(decision.gain) +
                                                 " is less than " + number(*aim.least_gain)};
    }
  }
  const auto above = [](int64_t spent, int64_t limit) { return limit > 0 && spent > limit; };
  if (above(candidate.moves.total, aim.budget.moves) ||
      above(candidate.moves.worst_gpu, aim.budget.moves_per_gpu)) {
    return Answer{Verdict::rate_limited,
                  std::to_string(candidate.moves.total) + " moves are more than the limits"};
  }
  return std::nullopt;
}

// Makes the decision an update to the candidate.
Decision Rebalancer::update_to(MeasuredCandidate candidate, const Measured& measured,
                               UpdateReason reason, Decision decision) const {
  const Placement& base = group_.in_force();
  PlacementUpdate update;
  update.id = state_.placements.next_id(decision.now.unix_seconds);
  update.base = group_.running();
  update.unix_seconds = decision.now.unix_seconds;
  update.reason = reason;
  update.gpus_down = gpus_down();
  update.imbalance_before = decision.imbalance;
  update.imbalance_after = decision.imbalance_after;
  update.changed_layers = layers_by_gain(base, measured, candidate);
  update.moves = moves_between(topology_, base, candidate.placement, state_.gpus_lost);
  update.placement = std::move(candidate.placement);
  const std::string why = reason == UpdateReason::threshold
                              ? "layer " + std::to_string(decision.worst_layer_id) + " has " +
                                    number(decision.worst_layer) + "; "
                              : "";
  Answer answer{mode() == Mode::active ? Verdict::update : Verdict::would_update,
                why + "imbalance " + number(decision.imbalance) + " -> " +
                    number(decision.imbalance_after) + " with " + std::to_string(decision.moves) +
                    " moves in " + std::to_string(update.changed_layers.size()) + " layers"};
  decision.update = std::move(update);
  return answered(std::move(decision), std::move(answer));
}

// ---- What operators ask for ----

Decision Rebalancer::refused(Now now, std::string why) const {
  return answered(begin(measure_now(now), now), {Verdict::invalid_candidate, std::move(why)});
}

Decision Rebalancer::plan_rebalance(Now now) const {
  const Measured measured = measure_now(now);
  Decision decision = begin(measured, now);
  if (Rule rule = check_reports(decision)) return answered(std::move(decision), std::move(*rule));
  return search(measured, {UpdateReason::requested, budget_of_an_update(), 0.0},
                std::move(decision));
}

Decision Rebalancer::plan_rollback(std::optional<uint64_t> version, Now now) const {
  const PlacementLog& log = state_.placements;
  if (!version && log.history.empty()) return refused(now, "there is no earlier placement");
  const uint64_t wanted = version ? *version : log.history.front().id.version;
  const PlacementUpdate* const earlier = log.find(wanted);
  if (!earlier && wanted != 0) {
    std::string kept = "0";
    for (const PlacementUpdate& update : log.history) {
      if (update.id.version != 0) kept += ", " + std::to_string(update.id.version);
    }
    return refused(now, "version " + std::to_string(wanted) + " is not kept; these are: " + kept);
  }
  if ((earlier ? earlier->gpus_down : std::vector<int32_t>{}) != gpus_down()) {
    return refused(now, "version " + std::to_string(wanted) +
                            " was made when other GPUs were down: drain or restore those first, "
                            "or take another version");
  }
  return plan_given(earlier ? earlier->placement : log.initial, UpdateReason::rollback, now);
}

Decision Rebalancer::plan_import(const Placement& placement, Now now) const {
  return plan_given(placement, UpdateReason::imported, now);
}

Decision Rebalancer::plan_given(const Placement& placement, UpdateReason reason, Now now) const {
  const PlacementRules rules{GroupRule::none, nullptr, gpus_down(), false};
  if (auto violation = find_violation(topology_, placement, rules)) {
    return refused(now, std::move(*violation));
  }
  const Measured measured = measure_now(now);
  Decision decision = begin(measured, now);
  MeasuredCandidate candidate =
      consider(keep_slots(topology_, group_.in_force(), placement), measured, decision);
  return update_to(std::move(candidate), measured, reason, std::move(decision));
}

}  // namespace eplbd
