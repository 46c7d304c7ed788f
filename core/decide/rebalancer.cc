// SPDX-License-Identifier: Apache-2.0
#include "core/decide/rebalancer.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace eplbd {
namespace {

// How long a start without recovered state waits for groups to say what they run.
constexpr Duration kHold = std::chrono::seconds(2);
// Rates need one decay for tokens and steps alike; with a half-life that tunes itself, this one.
constexpr Duration kRateHalfLife = std::chrono::seconds(10);
constexpr double kHourSeconds = 3600;

Duration rate_half_life(const WindowOptions& options) {
  return options.half_life.value_or(kRateHalfLife);
}

SourceRules source_rules(const RebalancerOptions& options) {
  return {options.workers.engine, options.workers.timeout, options.limits.sources};
}

PlacementUpdate initial_update(const Topology& topology, Now now) {
  PlacementUpdate update;
  update.placement = Placement::initial(topology);
  update.unix_seconds = now.unix_seconds;
  return update;
}

GroupState group_state(const Topology& topology, const std::optional<RebalancerState>& recovered,
                       Now now) {
  if (recovered) {
    return {topology,           recovered->initial,  recovered->published,
            recovered->highest, recovered->new_term, recovered->history};
  }
  return {topology, Placement::initial(topology), initial_update(topology, now), {}, true, {}};
}

}  // namespace

Rebalancer::Rebalancer(const Topology& topology, const RebalancerOptions& options, Now now,
                       std::optional<RebalancerState> recovered)
    : topology_(std::make_shared<const Topology>(topology)),
      options_(options),
      balancer_(make_balancer(options.balancer)),
      sources_(*topology_, source_rules(options), rate_half_life(options.window)),
      window_(*topology_, options.window),
      group_(group_state(*topology_, recovered, now)),
      gain_(*topology_) {
  if (!recovered) {
    hold_until_ = now.steady + kHold;
    return;
  }
  mode_ = recovered->mode;
  paused_ = recovered->paused;
  paused_until_unix_seconds_ = recovered->paused_until_unix_seconds;
  gpus_down_ = recovered->gpus_down;
  gpus_lost_ = recovered->gpus_lost;
  spent_ = recovered->spent;
}

IngestResult Rebalancer::ingest(const CountsReport& report, Now now) {
  const IngestResult result = sources_.admit(report, now.steady, admitted_);
  if (admitted_.counts.empty()) return result;
  window_.add(admitted_.counts, admitted_.covered, now.steady);
  gain_.add(admitted_.counts);
  if (!admitted_.gpu_tokens.empty()) {
    if (!gpu_window_) {
      gpu_window_.emplace(admitted_.gpu_tokens.size(), rate_half_life(options_.window));
    }
    gpu_window_->add(admitted_.gpu_tokens, admitted_.covered, now.steady);
  }
  return result;
}

template <typename Change>
ObserveResult Rebalancer::change_group(Change change) {
  const std::optional<Placement> previous =
      group_.pending() ? std::optional(group_.in_force()) : std::nullopt;
  const ObserveResult result = change();
  if (result.applied) {
    apply_seconds_ = result.apply_seconds;
    gain_.applied(*topology_, *previous, group_.in_force());
  }
  if (result.adopted) gain_.adopted();
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
    result = change_group([&] { return group_.report(report, now); });
  }
  if (sender.rejected) result.rejected = sender.rejected;
  result.duplicate = sender.duplicate;
  result.restarted = sender.restarted;
  result.lost = sender.lost;
  return result;
}

ObserveResult Rebalancer::advance(Now now) {
  window_.tick(now.steady);
  sources_.forget_silent(now.steady);
  while (!spent_.empty() && now.unix_seconds - spent_.front().unix_seconds >= kHourSeconds) {
    spent_.pop_front();
  }
  if (paused_ && !paused(now)) paused_ = false;
  const bool reported =
      group_.reported_at() && now.steady - *group_.reported_at() <= options_.workers.timeout;
  if (!reported && now.steady >= hold_until_) {
    if (const auto agreed = sources_.agreed_placement(now.steady)) {
      const ObserveResult result = change_group([&] { return group_.counts_name(*agreed, now); });
      if (result.applied || result.adopted || !result.detail.empty()) return result;
    }
  }
  return group_.advance(options_.workers.apply_timeout, now.steady);
}

RebalancerState Rebalancer::state() const {
  RebalancerState state;
  state.highest = group_.highest();
  state.new_term = group_.new_term();
  state.published = group_.published();
  state.initial = group_.initial();
  state.history = group_.history();
  state.spent = spent_;
  state.mode = mode_;
  state.paused = paused_;
  state.paused_until_unix_seconds = paused_until_unix_seconds_;
  state.gpus_down = gpus_down_;
  state.gpus_lost = gpus_lost_;
  return state;
}

RebalancerState Rebalancer::state_after(const Decision& decision, Now now) const {
  Rebalancer after = *this;
  after.record(decision, now);
  return after.state();
}

bool Rebalancer::record(const Decision& decision, Now now) {
  if (decision.publish_again) group_.published_again(now.steady);
  if (decision.verdict == Verdict::would_update) shadowed_at_ = now.steady;
  if (decision.update) {
    in_vain_.reset();
  } else if (decision.solved) {
    in_vain_ = {now.steady, decision.imbalance, decision.verdict, decision.detail};
  }
  if (decision.verdict != Verdict::update || !decision.update) return true;
  const PlacementUpdate& update = *decision.update;
  if (update.base != group_.running()) return false;
  group_.publish(update, now.steady);
  spent_.push_back({now.unix_seconds, decision.moves});
  if (update.reason == UpdateReason::rollback || update.reason == UpdateReason::imported) pause(0);
  return true;
}

std::optional<std::string> Rebalancer::set_gpus_down(std::vector<int32_t> down,
                                                     std::vector<int32_t> lost) {
  std::sort(down.begin(), down.end());
  std::sort(lost.begin(), lost.end());
  if (!down.empty() && (down.front() < 0 || down.back() >= topology_->gpus)) {
    return "there are GPUs 0 to " + std::to_string(topology_->gpus - 1);
  }
  const auto live = topology_->gpus - static_cast<int32_t>(down.size());
  if (live * topology_->slots_per_gpu() < topology_->logical_experts) {
    return std::to_string(live) + " GPUs with " + std::to_string(topology_->slots_per_gpu()) +
           " slots each cannot hold " + std::to_string(topology_->logical_experts) + " experts";
  }
  gpus_down_ = std::move(down);
  gpus_lost_ = std::move(lost);
  return std::nullopt;
}

void Rebalancer::set_options(const RebalancerOptions& options, Now now) {
  if (!(options.window == options_.window)) {
    // Nothing is lost: the new window starts from what the old one holds.
    AdaptiveWindow next(*topology_, options.window);
    std::vector<double> loads = this->loads(now);
    std::vector<uint32_t> counts(loads.size());
    std::transform(loads.begin(), loads.end(), counts.begin(),
                   [](double load) { return static_cast<uint32_t>(std::min(load, 4294967295.0)); });
    next.add(counts, Duration{0}, now.steady);
    window_ = std::move(next);
    gpu_window_.reset();
  }
  options_ = options;
  in_vain_.reset();
  balancer_ = make_balancer(options.balancer);
  sources_.set_rules(source_rules(options), rate_half_life(options.window));
}

void Rebalancer::pause(double until_unix_seconds) {
  paused_ = true;
  paused_until_unix_seconds_ = until_unix_seconds;
}

bool Rebalancer::paused(Now now) const {
  return paused_ &&
         (paused_until_unix_seconds_ == 0 || now.unix_seconds < paused_until_unix_seconds_);
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
  std::vector<double> loads(static_cast<size_t>(topology_->layers) * topology_->logical_experts);
  window_.read(now.steady, loads);
  return loads;
}

double Rebalancer::measured_imbalance(Now now) const {
  if (!gpu_window_) return 0;
  std::vector<double> tokens(static_cast<size_t>(topology_->layers) * topology_->gpus);
  gpu_window_->read(now.steady, tokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] /= topology_->gpu_speed(static_cast<int32_t>(i % topology_->gpus));
  }
  return imbalance_of(*topology_, tokens, gpus_down_).whole_model;
}

}  // namespace eplbd
