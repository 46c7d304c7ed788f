// SPDX-License-Identifier: Apache-2.0
#include "core/decide/rebalancer.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

namespace eplbd {
namespace {

// How long a start without the newest state waits for groups to say what they run.
constexpr Duration kHold = std::chrono::seconds(2);
// Rates need one decay for tokens and steps alike; with a half-life that tunes itself, this one.
constexpr Duration kRateHalfLife = std::chrono::seconds(10);
constexpr double kHourSeconds = 3600;
constexpr double kLongestPauseSeconds = 30.0 * 86400;
constexpr double kClockStepSeconds = 1;  // more than a clock is slewed by between two decisions

Duration rate_half_life(const WindowOptions& options) {
  return options.half_life.value_or(kRateHalfLife);
}

SourceRules source_rules(const RebalancerOptions& options) {
  return {options.workers.engine, options.workers.timeout, options.limits.sources};
}

RebalancerState fresh_state(const Topology& topology, Now now) {
  RebalancerState state;
  state.placements.initial = Placement::initial(topology);
  state.placements.published.placement = state.placements.initial;
  state.placements.published.unix_seconds = now.unix_seconds;
  return state;
}

// What the update leaves behind beside the placement.
void count_in(const Decision& decision, double date, RebalancerState& state) {
  state.spent.push_back({date, decision.moves, decision.forced});
  const UpdateReason reason = decision.update->reason;
  if (reason == UpdateReason::rollback || reason == UpdateReason::imported) {
    state.paused = true;
    state.paused_until_unix_seconds = 0;
  }
}

bool publishes(const Decision& decision) {
  return decision.verdict == Verdict::update && decision.update;
}

}  // namespace

Rebalancer::Rebalancer(const Topology& topology, const RebalancerOptions& options, Now now,
                       std::optional<RebalancerState> recovered)
    : topology_(topology),
      options_(options),
      state_(recovered ? std::move(*recovered) : fresh_state(topology, now)),
      balancer_(make_balancer(options.balancer)),
      sources_(topology_, source_rules(options), rate_half_life(options.window)),
      window_(topology_, options.window),
      jump_(topology_),
      group_(topology_, state_.placements, state_.gpus_empty),
      gain_(topology_),
      last_applied_(state_.placements.published.id),
      clock_ahead_(now.unix_seconds - to_seconds(now.steady.time_since_epoch())),
      started_(now.steady) {
  if (state_.placements.new_term) hold_until_ = now.steady + kHold;
  // Nothing was spent in the future, and nobody pauses for so long: the clock was set back.
  for (auto& spent : state_.spent)
    spent.unix_seconds = std::min(spent.unix_seconds, now.unix_seconds);
  state_.paused_until_unix_seconds =
      std::min(state_.paused_until_unix_seconds, now.unix_seconds + kLongestPauseSeconds);
  note_gpus();
}

IngestResult Rebalancer::ingest(const CountsReport& report, Now now) {
  const IngestResult result = sources_.admit(report, now.steady);
  if (result.counts.empty()) return result;
  window_.add(result.counts, result.covered, now.steady);
  jump_.add(result.counts, result.covered, now.steady, sources_.surprise_of(report.source));
  gain_.add(result.counts);
  if (!result.gpu_tokens.empty() && now.steady - result.covered >= in_force_since_) {
    if (!gpu_window_) {
      gpu_window_.emplace(result.gpu_tokens.size(), rate_half_life(options_.window));
    }
    gpu_window_->add(result.gpu_tokens, result.covered, now.steady);
  }
  return result;
}

template <typename Change>
ObserveResult Rebalancer::change_group(Change change, TimePoint now) {
  const std::optional<Placement> previous =
      group_.pending() ? std::optional(group_.in_force()) : std::nullopt;
  const ObserveResult result = change();
  if (result.applied) {
    apply_seconds_ = result.apply_seconds;
    // A group that started anew and takes up what it ran before tells nothing of what that is
    // worth.
    const PlacementId running = group_.running();
    if (std::exchange(last_applied_, running) != running) {
      gain_.applied(topology_, *previous, group_.in_force());
    }
  }
  if (result.adopted) gain_.adopted();
  if (result.applied || result.adopted) {
    in_force_since_ = now;
    gpu_window_.reset();
  }
  note_gpus();
  return result;
}

ObserveResult Rebalancer::observe(const StateReport& report, Now now) {
  const IngestResult sender = sources_.admit(report, now.steady);
  ObserveResult result;
  if (!sender.rejected && !sender.duplicate) {
    // Also that of an update that came before we did.
    if (std::isfinite(report.apply_seconds) && report.apply_seconds >= 0) {
      apply_seconds_ = report.apply_seconds;
    }
    result = change_group([&] { return group_.report(report, now); }, now.steady);
  }
  if (sender.rejected) result.rejected = sender.rejected;
  result.duplicate = sender.duplicate;
  result.restarted = sender.restarted;
  result.lost = sender.lost;
  return result;
}

ObserveResult Rebalancer::advance(Now now) {
  follow_clock(now);
  follow_jump(now);
  sources_.forget_silent(now.steady);
  while (!state_.spent.empty() &&
         date(now.steady) - state_.spent.front().unix_seconds >= kHourSeconds) {
    state_.spent.pop_front();
  }
  if (state_.paused && !paused(now)) state_.paused = false;
  const bool reported =
      group_.reported_at() && now.steady - *group_.reported_at() <= options_.workers.timeout;
  if (!reported && now.steady >= hold_until_) {
    if (const auto agreed = sources_.agreed_placement(now.steady)) {
      const ObserveResult result =
          change_group([&] { return group_.counts_name(*agreed, now); }, now.steady);
      if (result.applied || result.adopted || !result.detail.empty()) return result;
    }
  }
  return group_.advance(options_.workers.apply_timeout, now.steady);
}

RebalancerState Rebalancer::state_after(const Decision& decision) const {
  RebalancerState after = state_;
  if (!publishes(decision)) return after;
  after.placements.publish(*decision.update);
  count_in(decision, date(decision.now.steady), after);
  return after;
}

bool Rebalancer::record(const Decision& decision) {
  const TimePoint now = decision.now.steady;
  if (decision.publish_again) group_.published_again(now);
  if (decision.verdict == Verdict::would_update) shadowed_at_ = now;
  // Too little for a jump's answer, which must bring more than an update after the cooldown.
  const bool jump_only = decision.verdict == Verdict::gain_too_small && cooling_down(now);
  if (decision.solved || decision.verdict == Verdict::balanced) jumped_at_.reset();
  if (decision.update) {
    in_vain_.reset();
  } else if (decision.solved && !jump_only) {
    in_vain_ = {now,
                decision.imbalance,
                options_.trigger.min_gain - decision.gain,
                {decision.verdict, decision.detail}};
  }
  if (!publishes(decision)) return true;
  if (decision.update->base != group_.running()) return false;
  group_.publish(*decision.update, now);
  gpus_ordered_ = false;
  count_in(decision, date(decision.now.steady), state_);
  return true;
}

void Rebalancer::give_up(const Decision& decision) {
  if (decision.update) state_.placements.give_up(decision.update->id);
}

// When the wall clock was set, the dates that rules compare with it are set with it.
void Rebalancer::follow_clock(Now now) {
  const double ahead = now.unix_seconds - to_seconds(now.steady.time_since_epoch());
  const double step = ahead - std::exchange(clock_ahead_, ahead);
  if (std::abs(step) <= kClockStepSeconds) return;
  for (auto& spent : state_.spent) spent.unix_seconds += step;
  if (state_.paused_until_unix_seconds > 0) state_.paused_until_unix_seconds += step;
}

// GPUs that hold nothing, unless the others could not hold every expert.
void Rebalancer::note_gpus() {
  state_.gpus_empty = group_.empty_gpus();
  gpus_down_.clear();
  std::ranges::set_union(state_.gpus_down, state_.gpus_empty, std::back_inserter(gpus_down_));
  const auto live = topology_.gpus - static_cast<int64_t>(gpus_down_.size());
  if (live * topology_.slots_per_gpu() < topology_.logical_experts) gpus_down_ = state_.gpus_down;
}

void Rebalancer::fill_again(int32_t gpu) {
  group_.fill_again(gpu);
  gpus_ordered_ = true;
  note_gpus();
}

std::optional<std::string> Rebalancer::set_gpus_down(std::vector<int32_t> down,
                                                     std::vector<int32_t> lost) {
  std::sort(down.begin(), down.end());
  std::sort(lost.begin(), lost.end());
  if (!down.empty() && (down.front() < 0 || down.back() >= topology_.gpus)) {
    return "there are GPUs 0 to " + std::to_string(topology_.gpus - 1);
  }
  const auto live = topology_.gpus - static_cast<int32_t>(down.size());
  if (live * topology_.slots_per_gpu() < topology_.logical_experts) {
    return std::to_string(live) + " GPUs with " + std::to_string(topology_.slots_per_gpu()) +
           " slots each cannot hold " + std::to_string(topology_.logical_experts) + " experts";
  }
  gpus_ordered_ |= down != state_.gpus_down;
  state_.gpus_down = std::move(down);
  state_.gpus_lost = std::move(lost);
  note_gpus();
  return std::nullopt;
}

void Rebalancer::set_options(const RebalancerOptions& options, Now now) {
  if (!(options.window == options_.window)) {
    // Nothing is lost: the new window starts from what the old one holds.
    AdaptiveWindow next(topology_, options.window);
    next.jump(loads(now), Duration{0}, now.steady);
    window_ = std::move(next);
    gpu_window_.reset();
  }
  options_ = options;
  in_vain_.reset();
  balancer_ = make_balancer(options.balancer);
  sources_.set_rules(source_rules(options), rate_half_life(options.window));
}

void Rebalancer::pause(double until_unix_seconds) {
  state_.paused = true;
  state_.paused_until_unix_seconds = until_unix_seconds;
}

bool Rebalancer::paused(Now now) const {
  return state_.paused && (state_.paused_until_unix_seconds == 0 ||
                           date(now.steady) < state_.paused_until_unix_seconds);
}

int32_t Rebalancer::live_sources(Now now) const {
  const auto& sources = sources_.sources();
  return static_cast<int32_t>(std::count_if(sources.begin(), sources.end(), [&](const auto& entry) {
    return sources_.live(entry.second, now.steady);
  }));
}

int32_t Rebalancer::sources_behind(Now now) const {
  const auto& sources = sources_.sources();
  return static_cast<int32_t>(std::count_if(sources.begin(), sources.end(), [&](const auto& entry) {
    return sources_.live(entry.second, now.steady) && entry.second.running < group_.published().id;
  }));
}

std::vector<double> Rebalancer::loads(Now now) const {
  std::vector<double> loads(static_cast<size_t>(topology_.layers) * topology_.logical_experts);
  window_.read(now.steady, loads);
  return loads;
}

double Rebalancer::measured_imbalance(Now now) const {
  if (!gpu_window_) return 0;
  std::vector<double> tokens(static_cast<size_t>(topology_.layers) * topology_.gpus);
  gpu_window_->read(now.steady, tokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] /= topology_.gpu_speed(static_cast<int32_t>(i % topology_.gpus));
  }
  return imbalance_of(topology_, tokens, gpus_down()).whole_model;
}

}  // namespace eplbd
