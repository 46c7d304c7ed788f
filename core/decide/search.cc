// SPDX-License-Identifier: Apache-2.0
#include "core/decide/search.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "core/decide/answer.h"
#include "core/decide/limits.h"
#include "core/decide/number.h"

namespace eplbd {
namespace {

// Of one search: some 60 ms on 72 GPUs. What a jump leaves undone is for the next one.
constexpr int64_t kMostSteps = 8000;

Proposal propose(const Situation& situation, const Measured& measured, const MoveBudget& budget) {
  const RebalancerOptions& options = situation.options;
  Outlook outlook{.loads = measured.loads,
                  .steady_loads = {},
                  .error = situation.window.forecast_error(),
                  .newest_share = situation.window.newest_share()};
  std::vector<double> steady(measured.loads.size());
  if (situation.window.read_steady(steady)) outlook.steady_loads = steady;
  return situation.balancer->propose(
      {.topology = situation.topology,
       .in_force = situation.group.in_force(),
       .outlook = outlook,
       .gpus_down = situation.gpus_down,
       .budget = budget,
       .steps = kMostSteps,
       .settle = options.trigger.settle,
       .min_gain = options.trigger.min_gain,
       .apply_seconds =
           std::min(situation.apply_seconds, to_seconds(options.workers.apply_timeout))});
}

// The candidate beside the placement in force; its figures go into the decision, whatever comes.
MeasuredCandidate consider(const Situation& situation, Placement placement,
                           const Measured& measured, Decision& decision) {
  MeasuredCandidate candidate = measure(situation.topology, situation.group.in_force(),
                                        std::move(placement), measured, situation.gpus_down);
  decision.imbalance_after = candidate.imbalance.whole_model;
  decision.moves = candidate.moves.total;
  decision.worst_gpu_moves = candidate.moves.worst_gpu;
  return candidate;
}

// Why the candidate is not to be published, if it is not.
Rule judge(const Situation& situation, const MeasuredCandidate& candidate, const Aim& aim,
           const Decision& decision) {
  if (aim.least_gain) {
    if (candidate.placement == situation.group.in_force() || decision.gain <= 0) {
      return Answer{Verdict::no_better,
                    "no better placement than imbalance " + number(decision.imbalance)};
    }
    if (decision.gain < *aim.least_gain) {
      return Answer{Verdict::gain_too_small, "a gain of " + number(decision.gain) +
                                                 " is less than " + number(*aim.least_gain) +
                                                 why_so_much(situation, decision.now.steady)};
    }
  }
  if (aim.whatever_it_costs) return std::nullopt;
  const auto above = [](int64_t spent, int64_t limit) { return limit > 0 && spent > limit; };
  if (above(candidate.moves.total, aim.budget.moves) ||
      above(candidate.moves.worst_gpu, aim.budget.moves_per_gpu)) {
    return Answer{Verdict::rate_limited,
                  std::to_string(candidate.moves.total) + " moves are more than the limits"};
  }
  return std::nullopt;
}

// Makes the decision an update to the candidate.
Decision update_to(const Situation& situation, MeasuredCandidate candidate,
                   const Measured& measured, UpdateReason reason, Decision decision) {
  const GroupState& group = situation.group;
  PlacementUpdate update;
  update.id = situation.state.placements.next_id(decision.now.unix_seconds);
  update.base = group.running();
  update.unix_seconds = decision.now.unix_seconds;
  update.reason = reason;
  update.gpus_down = situation.gpus_down;
  update.imbalance_before = decision.imbalance;
  update.imbalance_after = decision.imbalance_after;
  update.changed_layers = layers_by_gain(group.in_force(), measured, candidate);
  update.moves = moves_between(situation.topology, group.in_force(), candidate.placement,
                               situation.state.gpus_lost);
  update.placement = std::move(candidate.placement);
  const std::string why = reason == UpdateReason::threshold
                              ? "layer " + std::to_string(decision.worst_layer_id) + " has " +
                                    number(decision.worst_layer) + "; "
                              : "";
  Answer answer{situation.mode() == Mode::active ? Verdict::update : Verdict::would_update,
                why + "imbalance " + number(decision.imbalance) + " -> " +
                    number(decision.imbalance_after) + " with " + std::to_string(decision.moves) +
                    " moves in " + std::to_string(update.changed_layers.size()) + " layers"};
  decision.update = std::move(update);
  return answered(std::move(decision), std::move(answer));
}

}  // namespace

Decision search(const Situation& situation, const Measured& measured, const Aim& aim,
                Decision decision) {
  const Placement& in_force = situation.group.in_force();
  decision.solved = true;
  Proposal proposal;
  try {
    proposal = propose(situation, measured, aim.budget);
  } catch (const std::invalid_argument& error) {
    return answered(std::move(decision), {Verdict::invalid_candidate, error.what()});
  }
  const PlacementRules rules{proposal.groups, &in_force, situation.gpus_down, false};
  if (auto violation = find_violation(situation.topology, proposal.placement, rules)) {
    return answered(std::move(decision), {Verdict::invalid_candidate, std::move(*violation)});
  }
  MeasuredCandidate candidate =
      consider(situation, std::move(proposal.placement), measured, decision);
  const double fall = decision.imbalance - decision.imbalance_after;
  decision.gain = std::min(fall, proposal.expected_gain.value_or(fall));
  if (Rule rule = judge(situation, candidate, aim, decision)) {
    return answered(std::move(decision), std::move(*rule));
  }
  return update_to(situation, std::move(candidate), measured, aim.reason, std::move(decision));
}

Decision update_to(const Situation& situation, Placement placement, const Measured& measured,
                   UpdateReason reason, Decision decision) {
  MeasuredCandidate candidate = consider(situation, std::move(placement), measured, decision);
  return update_to(situation, std::move(candidate), measured, reason, std::move(decision));
}

}  // namespace eplbd
