// The rules: from reports and a window to one verdict.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "core/decide/rebalancer.h"

namespace eplbd {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

// So many updates in a row that gained nothing make it slow down, twice as much for each further.
constexpr int32_t kUnpaidBeforeSlower = 3;
constexpr int32_t kMostDoublings = 6;
constexpr Duration kLeastSlowCooldown = std::chrono::seconds(1);

// A search in vain is not repeated at every tick; unless the imbalance grew by what is worth it.
constexpr Duration kSearchAgain = std::chrono::milliseconds(900);

// Of one search: some 60 ms on 72 GPUs. What a jump leaves undone is for the next one.
constexpr int64_t kMostSteps = 8000;

// The tighter of a limit (0: none) and what is left of another.
int64_t tighter(int64_t limit, int64_t left) { return limit == 0 ? left : std::min(limit, left); }

// Layers that differ, those whose peak falls most first.
std::vector<int32_t> layers_by_gain(const Topology& topology, const Placement& base,
                                    const Placement& next, std::span<const double> before,
                                    std::span<const double> after) {
  const auto peak = [&](std::span<const double> loads, int32_t layer) {
    const auto row = loads.subspan(static_cast<size_t>(layer) * topology.gpus, topology.gpus);
    return *std::max_element(row.begin(), row.end());
  };
  std::vector<int32_t> layers = changed_layers(base, next);
  std::stable_sort(layers.begin(), layers.end(), [&](int32_t a, int32_t b) {
    return peak(before, a) - peak(after, a) > peak(before, b) - peak(after, b);
  });
  return layers;
}

}  // namespace

// The GPUs that hold nothing are not the ones that operators want to hold nothing.
bool Rebalancer::gpus_to_change() const {
  const auto row = group_.published().placement.layer(0);
  for (int32_t gpu = 0; gpu < topology_->gpus; ++gpu) {
    const bool empty = row[static_cast<size_t>(gpu) * topology_->slots_per_gpu()] == kNoExpert;
    if (empty != std::binary_search(gpus_down_.begin(), gpus_down_.end(), gpu)) return true;
  }
  return false;
}

Duration Rebalancer::cooldown() const {
  const int32_t excess = gain_.unpaid() - kUnpaidBeforeSlower + 1;
  if (excess <= 0) return options_.trigger.cooldown;
  return std::max(options_.trigger.cooldown, kLeastSlowCooldown) *
         (int64_t{1} << std::min(excess, kMostDoublings));
}

Decision Rebalancer::measure(Now now, std::vector<double>& loads) const {
  Decision decision;
  loads = this->loads(now);
  decision.tokens = std::accumulate(loads.begin(), loads.end(), 0.0);
  decision.tokens_per_gpu_step = sources_.tokens_per_gpu_step(now.steady);
  const Imbalance imbalance = imbalance_of(*topology_, group_.in_force(), loads, gpus_down_);
  decision.imbalance = imbalance.whole_model;
  decision.worst_layer = *std::max_element(imbalance.layers.begin(), imbalance.layers.end());
  decision.publish_again =
      mode() == Mode::active && group_.due_again(options_.workers.apply_timeout, now.steady);
  return decision;
}

Rebalancer::Rule Rebalancer::check_reports(Now now, Decision& decision) const {
  if (!sources_.any_live(now.steady)) {
    decision.detail = "no source sent counts within the last " +
                      number(to_seconds(options_.workers.timeout)) + " s";
    return Verdict::no_counts;
  }
  const auto least = static_cast<double>(std::max<int64_t>(options_.trigger.min_tokens, 1));
  if (decision.tokens < least) {
    decision.detail =
        number(decision.tokens) + " tokens in the window, fewer than " + number(least);
    return Verdict::too_few_tokens;
  }
  if (decision.tokens_per_gpu_step <
      static_cast<double>(options_.trigger.min_tokens_per_gpu_step)) {
    decision.detail = number(decision.tokens_per_gpu_step) +
                      " tokens of a layer a GPU and step, fewer than " +
                      std::to_string(options_.trigger.min_tokens_per_gpu_step);
    return Verdict::too_few_tokens;
  }
  if (group_.topology_mismatch()) {
    decision.detail = group_.mismatch();
    return Verdict::topology_mismatch;
  }
  return std::nullopt;
}

Rebalancer::Rule Rebalancer::check_trigger(Now now, Decision& decision) const {
  if (group_.pending()) {
    decision.detail = group_.failed() ? group_.failure() : "the group is applying the placement";
    return group_.failed() ? Verdict::apply_failed : Verdict::applying;
  }
  const auto last = std::max(group_.applied_at(), shadowed_at_);
  if (now.steady < hold_until_ || (last && now.steady - *last < cooldown())) {
    decision.detail = last ? "the last placement was applied less than " +
                                 number(to_seconds(cooldown())) + " s ago"
                           : "just started: waiting for workers to say what they run";
    if (last && gain_.unpaid() >= kUnpaidBeforeSlower) {
      decision.detail += "; the last " + std::to_string(gain_.unpaid()) + " updates did not pay";
    }
    return Verdict::cooling_down;
  }
  // A layer is enough: min_gain tells whether it is worth it. The whole model's is never above it.
  if (decision.worst_layer <= options_.trigger.imbalance) {
    decision.detail = "imbalance " + number(decision.imbalance) + ", of no layer above " +
                      number(options_.trigger.imbalance);
    return Verdict::balanced;
  }
  return std::nullopt;
}

// The last search found nothing worth an update, and the load has hardly changed since.
bool Rebalancer::searched_in_vain(Now now, const Decision& decision) const {
  return in_vain_ && now.steady - in_vain_->at < kSearchAgain &&
         decision.imbalance - in_vain_->imbalance < options_.trigger.min_gain;
}

// What an update may cost now.
Rebalancer::Rule Rebalancer::check_limits(Now now, MoveBudget& budget, std::string& detail) const {
  const LimitOptions& limits = options_.limits;
  budget = {limits.max_moves, limits.max_moves_per_gpu, limits.max_layers};
  int64_t updates = 0;
  int64_t moves = 0;
  for (const auto& spent : spent_) {
    if (now.unix_seconds - spent.unix_seconds >= 3600) continue;
    ++updates;
    moves += spent.moves;
  }
  if (limits.updates_per_hour > 0 && updates >= limits.updates_per_hour) {
    detail = std::to_string(updates) + " updates within an hour, the limit is " +
             std::to_string(limits.updates_per_hour);
    return Verdict::rate_limited;
  }
  if (limits.moves_per_hour > 0) {
    if (moves >= limits.moves_per_hour) {
      detail = std::to_string(moves) + " moves within an hour, the limit is " +
               std::to_string(limits.moves_per_hour);
      return Verdict::rate_limited;
    }
    budget.moves = tighter(budget.moves, limits.moves_per_hour - moves);
  }
  return std::nullopt;
}

Decision Rebalancer::decide(Now now) const {
  std::vector<double> loads;
  Decision decision = measure(now, loads);
  const auto stop = [&](Verdict verdict) {
    decision.verdict = verdict;
    return decision;
  };
  if (mode() == Mode::observe) {
    decision.detail = "mode is observe";
    return stop(Verdict::observing);
  }
  const bool must_change = (group_.broken() && !group_.pending()) || gpus_to_change();
  if (mode() == Mode::active && must_change && !group_.topology_mismatch()) {
    solve(now, loads, UpdateReason::gpu, MoveBudget(), -1, decision);
    return decision;
  }
  if (paused(now)) {
    decision.detail = "paused by an operator";
    return stop(Verdict::paused);
  }
  if (const Rule rule = check_reports(now, decision)) return stop(*rule);
  if (group_.nameless() && now.steady >= hold_until_) {
    set_candidate(now, loads, group_.in_force(), UpdateReason::recovered, decision);
    return decision;
  }
  if (const Rule rule = check_trigger(now, decision)) return stop(*rule);
  MoveBudget budget;
  if (const Rule rule = check_limits(now, budget, decision.detail)) return stop(*rule);
  if (searched_in_vain(now, decision)) {
    decision.detail = in_vain_->detail;
    return stop(in_vain_->verdict);
  }
  solve(now, loads, UpdateReason::threshold, budget, options_.trigger.min_gain, decision);
  return decision;
}

// Runs the balancer, and says what is to become of its candidate.
void Rebalancer::solve(Now now, std::span<const double> loads, UpdateReason reason,
                       MoveBudget budget, double min_gain, Decision& decision) const {
  decision.solved = true;
  Outlook outlook{.loads = loads,
                  .steady_loads = {},
                  .error = window_.forecast_error(),
                  .drift = window_.forecast_drift()};
  std::vector<double> steady(loads.size());
  if (window_.read_steady(steady)) outlook.steady_loads = steady;
  const BalanceRequest request{
      .topology = *topology_,
      .in_force = group_.in_force(),
      .outlook = outlook,
      .gpus_down = gpus_down_,
      .budget = budget,
      .steps = kMostSteps,
      .settle = options_.trigger.settle,
      .min_gain = options_.trigger.min_gain,
      .apply_seconds = std::min(apply_seconds_, to_seconds(options_.workers.apply_timeout))};
  Proposal proposal;
  try {
    proposal = balancer_->propose(request);
  } catch (const std::invalid_argument& error) {
    decision.verdict = Verdict::invalid_candidate;
    decision.detail = error.what();
    return;
  }
  const PlacementRules rules{proposal.groups, &group_.in_force(), gpus_down_, false};
  if (auto violation = find_violation(*topology_, proposal.placement, rules)) {
    decision.verdict = Verdict::invalid_candidate;
    decision.detail = *violation;
    return;
  }
  set_candidate(now, loads, std::move(proposal.placement), reason, decision);
  const Placement& placement = decision.update->placement;
  const auto drop = [&](Verdict verdict, std::string detail) {
    decision.verdict = verdict;
    decision.detail = std::move(detail);
    decision.update.reset();
  };
  const double fall = decision.imbalance - decision.imbalance_after;
  const double gain = std::min(fall, proposal.expected_gain.value_or(fall));
  if (reason != UpdateReason::gpu && (placement == group_.in_force() || gain <= 0)) {
    drop(Verdict::no_better, "no better placement than imbalance " + number(decision.imbalance));
  } else if (gain < min_gain && reason != UpdateReason::gpu) {
    drop(Verdict::gain_too_small,
         "a gain of " + number(gain) + " is less than " + number(min_gain));
  } else if ((budget.moves > 0 && decision.moves > budget.moves) ||
             (budget.moves_per_gpu > 0 && decision.worst_gpu_moves > budget.moves_per_gpu)) {
    drop(Verdict::rate_limited, std::to_string(decision.moves) + " moves are more than the limits");
  }
}

// Makes the decision an update to `candidate`.
void Rebalancer::set_candidate(Now now, std::span<const double> loads, Placement candidate,
                               UpdateReason reason, Decision& decision) const {
  const Placement& base = group_.in_force();
  PlacementUpdate update;
  update.id = group_.next_id(now.unix_seconds);
  update.base = group_.running();
  update.unix_seconds = now.unix_seconds;
  update.reason = reason;
  update.gpus_down = gpus_down_;
  const auto before = gpu_loads(*topology_, base, loads);
  const auto after = gpu_loads(*topology_, candidate, loads);
  decision.imbalance_after = imbalance_of(*topology_, after, gpus_down_).whole_model;
  update.imbalance_before = decision.imbalance;
  update.imbalance_after = decision.imbalance_after;
  update.changed_layers = layers_by_gain(*topology_, base, candidate, before, after);
  update.moves = moves_between(*topology_, base, candidate, gpus_lost_);
  const MoveCount count = count_moves(*topology_, base, candidate);
  decision.moves = count.total;
  decision.worst_gpu_moves = count.worst_gpu;
  decision.detail = "imbalance " + number(decision.imbalance) + " -> " +
                    number(decision.imbalance_after) + " with " + std::to_string(count.total) +
                    " moves in " + std::to_string(update.changed_layers.size()) + " layers";
  update.placement = std::move(candidate);
  decision.update = std::move(update);
  decision.verdict = mode() == Mode::active ? Verdict::update : Verdict::would_update;
}

Decision Rebalancer::refused(Now now, std::string why) const {
  std::vector<double> loads;
  Decision decision = measure(now, loads);
  decision.verdict = Verdict::invalid_candidate;
  decision.detail = std::move(why);
  return decision;
}

Decision Rebalancer::plan_rebalance(Now now) const {
  std::vector<double> loads;
  Decision decision = measure(now, loads);
  if (const Rule rule = check_reports(now, decision)) {
    decision.verdict = *rule;
    return decision;
  }
  const LimitOptions& limits = options_.limits;
  solve(now, loads, UpdateReason::requested,
        {limits.max_moves, limits.max_moves_per_gpu, limits.max_layers}, 0, decision);
  return decision;
}

Decision Rebalancer::plan_rollback(std::optional<uint64_t> version, Now now) const {
  const auto& history = group_.history();
  if (!version && history.empty()) return refused(now, "there is no earlier placement");
  const uint64_t wanted = version.value_or(history.empty() ? 0 : history.front().id.version);
  const PlacementUpdate* const earlier = group_.find(wanted);
  if (!earlier && wanted != 0) {
    std::string kept = "0";
    for (const PlacementUpdate& update : history) {
      if (update.id.version != 0) kept += ", " + std::to_string(update.id.version);
    }
    return refused(now, "version " + std::to_string(wanted) + " is not kept; these are: " + kept);
  }
  if ((earlier ? earlier->gpus_down : std::vector<int32_t>{}) != gpus_down_) {
    return refused(now, "version " + std::to_string(wanted) +
                            " was made when other GPUs were down: drain or restore those first, "
                            "or take another version");
  }
  Decision decision = plan_import(earlier ? earlier->placement : group_.initial(), now);
  if (decision.update) decision.update->reason = UpdateReason::rollback;
  return decision;
}

Decision Rebalancer::plan_import(const Placement& placement, Now now) const {
  PlacementRules rules{GroupRule::none, nullptr, gpus_down_, false};
  if (const auto violation = find_violation(*topology_, placement, rules)) {
    return refused(now, *violation);
  }
  std::vector<double> loads;
  Decision decision = measure(now, loads);
  set_candidate(now, loads, keep_slots(*topology_, group_.in_force(), placement),
                UpdateReason::imported, decision);
  return decision;
}

}  // namespace eplbd
