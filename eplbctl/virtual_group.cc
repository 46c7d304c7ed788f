// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/virtual_group.h"

#include <chrono>
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
  state.initial = Placement::initial(topology);
  state.published.placement = state.initial;
  state.published.unix_seconds = kStartUnixSeconds;
  return state;
}

template <typename T>
PackedArray<T> packed(std::span<const T> values) {
  return PackedArray<T>(std::as_bytes(values));
}

}  // namespace

VirtualGroup::VirtualGroup(const Topology& topology, const RebalancerOptions& options,
                           double step_seconds, double apply_seconds)
    : topology_(topology),
      step_seconds_(step_seconds),
      apply_seconds_(apply_seconds),
      rebalancer_(topology, options, at(0), known_start(topology)),
      serving_(Placement::initial(topology)) {
  report_state(at(0));
}

Now VirtualGroup::at(double seconds) const {
  return {TimePoint(kStart + from_seconds(seconds)), kStartUnixSeconds + seconds};
}

void VirtualGroup::report_counts(std::span<const uint32_t> counts, Now now) {
  CountsReport report;
  report.source = "replay";
  report.sequence = static_cast<uint64_t>(steps_);
  report.epoch = 1;
  report.since = kStartUnixSeconds;
  report.ts = now.unix_seconds;
  report.steps = 1;
  report.running = running_;
  report.counts = packed(counts);
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
  if (report.status == WorkerStatus::applied) report.apply_seconds = apply_seconds_;
  report.layers = topology_.layers;
  report.logical_experts = topology_.logical_experts;
  report.slots = topology_.slots;
  report.gpus = topology_.gpus;
  report.physical_to_logical = packed(std::span(serving_.map()));
  rebalancer_.observe(report, now);
}

void VirtualGroup::apply(double until_seconds) {
  if (!pending_ || applied_at_ > until_seconds + kRounding) return;
  serving_ = std::move(pending_->placement);
  running_ = pending_->id;
  pending_.reset();
  report_state(at(applied_at_));
}

VirtualGroup::Step VirtualGroup::step(std::span<const uint32_t> counts) {
  const double end = static_cast<double>(steps_ + 1) * step_seconds_;
  apply(end);
  const Now now = at(end);
  report_counts(counts, now);
  report_state(now);
  rebalancer_.advance(now);
  ++steps_;

  Step step;
  step.base = serving_;
  const auto start = std::chrono::steady_clock::now();
  step.decision = rebalancer_.decide(now);
  step.decide_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  rebalancer_.record(step.decision, now);
  if (step.decision.verdict == Verdict::update) {
    pending_ = *step.decision.update;
    applied_at_ = end + apply_seconds_;
    apply(end);
  }
  return step;
}

}  // namespace eplbd
