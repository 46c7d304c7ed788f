// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/virtual_group.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>

namespace eplbd {
namespace {

constexpr double kStartUnixSeconds = 1e9;  // any date will do
constexpr Duration kStart = std::chrono::hours(1);
constexpr double kRounding = 1e-9;   // seconds: sums of steps are not exact
constexpr double kClockTick = 1e-6;  // seconds between state messages of one moment

// As a daemon that has run for long: it need not wait for groups to say what they run.
RebalancerState known_start(const Topology& topology) {
  RebalancerState state;
  state.placements.initial = Placement::initial(topology);
  state.placements.published.placement = state.placements.initial;
  state.placements.published.unix_seconds = kStartUnixSeconds;
  state.placements.new_term = false;
  return state;
}

}  // namespace

// Something happens: a source reports, or (-1) a decision is due.
struct VirtualGroup::Moment {
  double seconds = 0;
  int32_t source = -1;
};

VirtualGroup::VirtualGroup(const Topology& topology, const RebalancerOptions& options,
                           const VirtualTime& time)
    : topology_(topology),
      time_(time),
      interval_seconds_(to_seconds(options.trigger.interval)),
      rebalancer_(topology, options, at(0), known_start(topology)),
      counters_(time.sources, topology.layers, topology.logical_experts),
      serving_(Placement::initial(topology)) {
  for (int32_t i = 0; i < time.sources; ++i) names_.push_back("dp" + std::to_string(i));
  report_state(at(0));
}

// After `begin`, not after `end`; a report comes before the decision of the same moment.
std::vector<VirtualGroup::Moment> VirtualGroup::moments_of(double begin, double end) const {
  std::vector<Moment> moments;
  for (int32_t source = 0; source < counters_.sources(); ++source) {
    const double phase = counters_.phase(source);
    moments.push_back({phase == 1 ? end : begin + phase * (end - begin), source});
  }
  if (counters_.sources() == 1) {
    moments.push_back({end, -1});
    return moments;
  }
  for (double tick = std::floor(begin / interval_seconds_ + kRounding) + 1;
       tick * interval_seconds_ <= end + kRounding; ++tick) {
    moments.push_back({std::min(tick * interval_seconds_, end), -1});
  }
  std::stable_sort(moments.begin(), moments.end(),
                   [](const Moment& a, const Moment& b) { return a.seconds < b.seconds; });
  return moments;
}

Now VirtualGroup::at(double seconds) const {
  return {TimePoint(kStart + from_seconds(seconds)), kStartUnixSeconds + seconds};
}

void VirtualGroup::report_counts(int32_t source, std::span<const uint32_t> counts, Now now) {
  CountsReport report;
  report.source = names_[source];
  report.sequence = static_cast<uint64_t>(steps_);
  report.epoch = 1;
  report.since = kStartUnixSeconds;
  report.ts = now.unix_seconds;
  report.steps = 1;
  report.running = running_;
  report.cumulative = true;
  report.counts = PackedArray<uint32_t>(counters_.report(source, counts));
  const IngestResult result = rebalancer_.ingest(report, now);
  if (result.rejected) {
    throw std::runtime_error("the rebalancer refuses these counts: " +
                             std::string(to_string(*result.rejected)));
  }
}

void VirtualGroup::report_state(Now now) {
  StateReport report;
  report.source = "replay-group";
  report.sequence = state_messages_++;
  report.epoch = 1;
  report.ts = now.unix_seconds + static_cast<double>(report.sequence) * kClockTick;
  report.running = running_;
  report.status = pending_                    ? WorkerStatus::applying
                  : running_ == PlacementId{} ? WorkerStatus::idle
                                              : WorkerStatus::applied;
  if (report.status == WorkerStatus::applied) report.apply_seconds = time_.apply_seconds;
  report.set_map(topology_, serving_);
  report.inactive_gpus = true;
  rebalancer_.observe(report, now);
}

void VirtualGroup::apply() {
  serving_ = std::move(pending_->placement);
  running_ = pending_->id;
  pending_.reset();
  report_state(at(applied_at_));
}

VirtualGroup::Decided VirtualGroup::decide(double seconds) {
  const Now now = at(seconds);
  report_state(now);
  rebalancer_.advance(now);
  Decided decided;
  const auto start = std::chrono::steady_clock::now();
  decided.decision = rebalancer_.decide(now);
  decided.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  rebalancer_.record(decided.decision);
  if (decided.decision.verdict == Verdict::update) {
    pending_ = *decided.decision.update;
    applied_at_ = seconds + time_.apply_seconds;
  }
  return decided;
}

VirtualGroup::Step VirtualGroup::step(std::span<const uint32_t> counts) {
  const double begin = static_cast<double>(steps_) * time_.step_seconds;
  const double end = static_cast<double>(steps_ + 1) * time_.step_seconds;
  Step step;
  double served_until = begin;
  const auto serve = [&](double until) {
    step.served.push_back({serving_, (until - served_until) / time_.step_seconds});
    served_until = until;
  };
  for (const Moment& moment : moments_of(begin, end)) {
    const auto apply_due = [&] {
      if (!pending_ || applied_at_ > moment.seconds + kRounding) return;
      serve(moment.seconds);
      apply();
    };
    apply_due();
    if (moment.source >= 0) {
      report_counts(moment.source, counts, at(moment.seconds));
    } else {
      step.decided.push_back(decide(moment.seconds));
    }
    apply_due();
  }
  serve(end);
  ++steps_;
  return step;
}

}  // namespace eplbd
