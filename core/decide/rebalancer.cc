// SPDX-License-Identifier: Apache-2.0
#include "core/decide/rebalancer.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "core/decide/cooldown.h"
#include "core/decide/limits.h"
#include "core/decide/resize.h"
#include "core/model/imbalance.h"

namespace eplbd {
namespace {

constexpr double kLongestPauseSeconds = 30.0 * 86400;
// What is adopted goes out at once, then after a pause that doubles; an hour without forgets it.
constexpr double kFirstAdoptedPauseSeconds = 5;
constexpr double kClockStepSeconds = 1;  // more than a clock is slewed by between two decisions

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

// Of a group that says it is of another shape, what it counts by expert is as good as ever.
CountsReport without_gpus(CountsReport report, const Topology& topology, int32_t gpus) {
  const size_t told = report.gpu_tokens.size();
  const auto layers = static_cast<size_t>(topology.layers);
  if (told == layers * gpus && gpus != topology.gpus) report.gpu_tokens = {};
  return report;
}

// Of one that must be, whatever it gains, nothing tells whether it paid.
bool is_to_gain(UpdateReason reason) {
  return reason != UpdateReason::gpu && reason != UpdateReason::repaired &&
         reason != UpdateReason::resized;
}

bool publishes(const Decision& decision) {
  return decision.verdict == Verdict::update && decision.update;
}

}  // namespace

Rebalancer::Rebalancer(const Topology& configured, const RebalancerOptions& options, Now now,
                       std::optional<RebalancerState> recovered)
    : situation_(configured, options, now,
                 recovered ? std::move(*recovered) : fresh_state(configured, now)),
      last_applied_(situation_.state.placements.published.id) {
  bound_dates(now);
  note_gpus();
}

// Nothing was spent in the future, and nobody pauses for so long: the clock was set back.
void Rebalancer::bound_dates(Now now) {
  RebalancerState& state = situation_.state;
  for (auto& spent : state.spent)
    spent.unix_seconds = std::min(spent.unix_seconds, now.unix_seconds);
  state.paused_until_unix_seconds =
      std::min(state.paused_until_unix_seconds, now.unix_seconds + kLongestPauseSeconds);
  RebalancerState::Turn& turn = state.adopted;
  turn.pause_seconds = std::min(turn.pause_seconds, kHourSeconds);
  turn.unix_seconds = std::min(turn.unix_seconds, now.unix_seconds + turn.pause_seconds);
}

IngestResult Rebalancer::ingest(const CountsReport& report, Now now) {
  SourceTable& sources = situation_.sources;
  if (sources.arrivals().full() || sources.gpu_arrivals().full()) pour(now.steady);
  const CarriedMap* const carried = situation_.group.carried();
  const IngestResult result = sources.admit(
      carried == nullptr ? report : without_gpus(report, topology(), carried->shape.gpus),
      now.steady);
  if (result.counts.empty()) return result;
  if (situation_.window.each_at_once() || result.apart) {
    situation_.window.add(result.counts, result.covered, now.steady);
  }
  if (result.apart) situation_.gain.add(result.counts);
  situation_.jump.add(sources.arrivals(), result.covered, now.steady,
                      sources.surprise_of(report.source));
  if (!result.gpu_tokens.empty()) keep_gpu_tokens(result, now.steady);
  return result;
}

// Those alone that came under the placement in force.
void Rebalancer::keep_gpu_tokens(const IngestResult& result, TimePoint now) {
  Arrivals& arrivals = situation_.sources.gpu_arrivals();
  if (now - result.covered < in_force_since_) return arrivals.take_back();
  if (!arrivals.keep(result.covered)) gpu_window().add(result.gpu_tokens, result.covered, now);
}

// What came, in integers, into what is in floating point.
void Rebalancer::pour(TimePoint now) {
  Arrivals& arrivals = situation_.sources.arrivals();
  if (!arrivals.empty()) {
    if (!situation_.window.each_at_once()) situation_.window.add_all(arrivals);
    situation_.gain.add(arrivals.sums());
    arrivals.clear();
  }
  Arrivals& of_gpus = situation_.sources.gpu_arrivals();
  if (!of_gpus.empty()) {
    gpu_window().add(of_gpus.sums(), of_gpus.covered(), now);
    of_gpus.clear();
  }
}

LoadWindow Rebalancer::empty_gpu_window() const {
  const auto cells = static_cast<size_t>(topology().layers) * topology().gpus;
  return {cells, rate_half_life(options().window)};
}

LoadWindow& Rebalancer::gpu_window() {
  if (!gpu_window_) gpu_window_ = empty_gpu_window();
  return *gpu_window_;
}

template <typename Change>
ObserveResult Rebalancer::change_group(Change change, TimePoint now) {
  pour(now);  // it came under what is in force until now
  const GroupState& group = situation_.group;
  const std::optional<Placement> previous =
      group.pending() ? std::optional(group.in_force()) : std::nullopt;
  ObserveResult result = change();
  if (result.applied) {
    situation_.apply_seconds = result.apply_seconds;
    // A group that started anew and takes up what it ran before tells nothing of what that is
    // worth; nor does the same map by another name.
    const PlacementId running = group.running();
    const bool same_map = *previous == group.in_force();
    const bool another = std::exchange(last_applied_, running) != running && !same_map;
    if (another && is_to_gain(group.published().reason)) {
      situation_.gain.applied(topology(), *previous, group.in_force());
    } else if (another) {
      situation_.gain.adopted();
    }
  }
  if (result.adopted) situation_.gain.adopted();
  if (result.applied || result.adopted) {
    in_force_since_ = now;
    gpu_window_.reset();
  }
  note_gpus();
  return result;
}

ObserveResult Rebalancer::observe(const StateReport& report, Now now) {
  const IngestResult sender = situation_.sources.admit(report, now.steady);
  ObserveResult result;
  if (!sender.rejected && !sender.duplicate) {
    // Also that of an update that came before we did.
    if (std::isfinite(report.apply_seconds) && report.apply_seconds >= 0) {
      situation_.apply_seconds = report.apply_seconds;
    }
    result = change_group([&] { return situation_.group.report(report, now); }, now.steady);
  }
  if (sender.rejected) result.rejected = sender.rejected;
  result.duplicate = sender.duplicate;
  result.restarted = sender.restarted;
  result.lost = sender.lost;
  return result;
}

ObserveResult Rebalancer::advance(Now now) {
  pour(now.steady);
  follow_clock(now);
  follow_jump(now.steady);
  RebalancerState& state = situation_.state;
  GroupState& group = situation_.group;
  situation_.sources.forget_silent(now.steady);
  const double today = situation_.date(now.steady);
  while (!state.spent.empty() && today - state.spent.front().unix_seconds >= kHourSeconds) {
    state.spent.pop_front();
  }
  if (state.paused && !paused(now)) state.paused = false;
  const WorkerOptions& workers = options().workers;
  const bool reported = group.reported_at() && now.steady - *group.reported_at() <= workers.timeout;
  if (!reported && now.steady >= situation_.hold_until) {
    if (const auto agreed = situation_.sources.agreed_placement(now.steady)) {
      ObserveResult result =
          change_group([&] { return group.counts_name(*agreed, now); }, now.steady);
      if (result.applied || result.adopted || !result.detail.empty()) return result;
    }
  }
  return group.advance(workers.apply_timeout, now.steady);
}

RebalancerState Rebalancer::state_after(const Decision& decision) const {
  if (!publishes(decision)) return situation_.state;
  RebalancerState after =
      decision.carried ? state_in_shape(situation_, *decision.carried) : situation_.state;
  after.placements.publish(*decision.update);
  count_in(decision, situation_.date(decision.now.steady), after);
  return after;
}

bool Rebalancer::record(const Decision& decision) {
  const TimePoint now = decision.now.steady;
  if (decision.publish_again) situation_.group.published_again(now);
  if (decision.verdict == Verdict::would_update) situation_.shadowed_at = now;
  // Too little for a jump's answer, which must bring more than an update after the cooldown.
  const bool jump_only =
      decision.verdict == Verdict::gain_too_small && cooling_down(situation_, now);
  if (decision.solved || decision.verdict == Verdict::balanced) situation_.jumped_at.reset();
  if (decision.update) {
    situation_.in_vain.reset();
  } else if (decision.solved && !jump_only) {
    const double lacking = paced_gain(situation_, now) - decision.gain;
    situation_.in_vain = {now, decision.imbalance, lacking, {decision.verdict, decision.detail}};
  }
  if (!publishes(decision)) return true;
  if (decision.carried && !resize(*decision.carried, now)) return false;
  if (decision.update->base != situation_.group.running()) return false;
  situation_.group.publish(*decision.update, now);
  situation_.gpus_ordered = false;
  count_in(decision, situation_.date(now), situation_.state);
  return true;
}

void Rebalancer::give_up(const Decision& decision) {
  if (decision.update) situation_.state.placements.give_up(decision.update->id);
}

// While a jump is suspected the window takes nothing in: some sources would speak for all.
void Rebalancer::follow_jump(TimePoint now) {
  JumpDetector& jump = situation_.jump;
  AdaptiveWindow& window = situation_.window;
  if (const auto since = jump.gathered_since()) {
    if (!situation_.sources.awaited(*since, now).empty()) return;
    std::vector<double> loads(static_cast<size_t>(topology().layers) * topology().logical_experts);
    if (const auto ago = jump.settle(now, loads)) {
      // Who only measures is told all that came, decayed, whatever the load does.
      if (mode() != Mode::observe) window.jump(loads, *ago, now);
      situation_.jumped_at = now - *ago;
    }
    if (jump.gathered_since()) return;
  }
  if (window.tick(now)) jump.expect(situation_.loads(now));
}

// When the wall clock was set, the dates that rules compare with it are set with it.
void Rebalancer::follow_clock(Now now) {
  const double ahead = now.unix_seconds - to_seconds(now.steady.time_since_epoch());
  const double step = ahead - std::exchange(situation_.clock_ahead, ahead);
  if (std::abs(step) <= kClockStepSeconds) return;
  RebalancerState& state = situation_.state;
  for (auto& spent : state.spent) spent.unix_seconds += step;
  if (state.paused_until_unix_seconds > 0) state.paused_until_unix_seconds += step;
  state.adopted.unix_seconds += step;
}

std::optional<double> Rebalancer::seconds_to_adopted(Now now) const {
  if (!state().placements.waits) return std::nullopt;
  return std::max(state().adopted.unix_seconds - situation_.date(now.steady), 0.0);
}

// Workers take what is above what they hold: one that reports ever higher names with maps of its
// own must not move the weights of all others at its pace.
void Rebalancer::tell_adopted(Now now) {
  RebalancerState::Turn& turn = situation_.state.adopted;
  const double today = situation_.date(now.steady);
  if (today - turn.unix_seconds > kHourSeconds) turn.pause_seconds = 0;
  turn.pause_seconds = std::clamp(2 * turn.pause_seconds, kFirstAdoptedPauseSeconds, kHourSeconds);
  turn.unix_seconds = today + turn.pause_seconds;
  situation_.state.placements.waits = false;
}

// GPUs that hold nothing, unless the group cannot run so or the others could not hold every expert.
void Rebalancer::note_gpus() {
  RebalancerState& state = situation_.state;
  std::vector<int32_t>& down = situation_.gpus_down;
  state.gpus_empty = situation_.group.empty_gpus();
  down.clear();
  if (!situation_.group.may_empty_gpus()) return;
  std::ranges::set_union(state.gpus_down, state.gpus_empty, std::back_inserter(down));
  const auto live = topology().gpus - static_cast<int64_t>(down.size());
  if (live * topology().slots_per_gpu() < topology().logical_experts) down = state.gpus_down;
}

int32_t Rebalancer::live_sources(Now now) const {
  const auto live = [&](const auto& entry) { return sources().live(entry.second, now.steady); };
  return static_cast<int32_t>(std::ranges::count_if(sources().sources(), live));
}

int32_t Rebalancer::sources_behind(Now now) const {
  const auto behind = [&](const auto& entry) {
    return sources().live(entry.second, now.steady) &&
           entry.second.running < group().published().id;
  };
  return static_cast<int32_t>(std::ranges::count_if(sources().sources(), behind));
}

double Rebalancer::measured_imbalance(Now now) const {
  const Arrivals& newest = sources().gpu_arrivals();
  if (!gpu_window_ && newest.empty()) return 0;
  LoadWindow window = gpu_window_ ? *gpu_window_ : empty_gpu_window();
  if (!newest.empty()) window.add(newest.sums(), newest.covered(), now.steady);
  std::vector<double> tokens(static_cast<size_t>(topology().layers) * topology().gpus);
  window.read(now.steady, tokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] /= topology().gpu_speed(static_cast<int32_t>(i % topology().gpus));
  }
  return imbalance_of(topology(), tokens, gpus_down()).whole_model;
}

}  // namespace eplbd
