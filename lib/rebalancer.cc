// The rebalancer in process: core's, with one source of counts and one group that applies what it
// is told. Versions are its ids.
// SPDX-License-Identifier: Apache-2.0
#include "core/decide/rebalancer.h"

#include <algorithm>
#include <optional>

#include "lib/arguments.h"

namespace eplbd {
namespace {

// Its clock is the caller's; where that begins does not matter to core, but it must not be 0.
constexpr double kEpochSeconds = 1e9;
constexpr Duration kEpoch = std::chrono::hours(1);
constexpr double kMostNow = 4e9;
// Reports of one moment differ by this much, as a sender's must grow.
constexpr double kReportTick = 1e-6;
// In process nobody falls silent, and no transfer is given up but by eplb_rebalancer_adopt().
constexpr Duration kForever = std::chrono::hours(24 * 365 * 50);
constexpr double kMonthSeconds = 30 * 86400;

eplb_rebalancer_options default_options() {
  const RebalancerOptions usual;
  eplb_rebalancer_options options{};
  options.struct_size = sizeof(options);
  options.policy = EPLB_INCREMENTAL;
  options.imbalance = usual.trigger.imbalance;
  options.settle = usual.trigger.settle;
  options.cooldown_seconds = to_seconds(usual.trigger.cooldown);
  options.min_gain = usual.trigger.min_gain;
  options.min_tokens_per_gpu_step = usual.trigger.min_tokens_per_gpu_step;
  options.updates_per_hour = usual.limits.updates_per_hour;
  return options;
}

RebalancerOptions options_of(const eplb_rebalancer_options& given) {
  RebalancerOptions options;
  options.balancer = balancer_of(given.policy, given.hierarchical, given.seed);
  if (given.half_life_seconds != 0) {
    check_range(given.half_life_seconds, 0.001, kMonthSeconds, "half_life_seconds");
    options.window.half_life = from_seconds(given.half_life_seconds);
  }
  check_range(given.settle, 1, 1e9, "settle");
  check_range(given.imbalance, 1, 1e9, "imbalance");
  if (given.imbalance <= given.settle) reject("imbalance", "must be above settle");
  check_range(given.cooldown_seconds, 0, kMonthSeconds, "cooldown_seconds");
  check_range(given.min_gain, 0, 1e9, "min_gain");
  options.trigger.imbalance = given.imbalance;
  options.trigger.settle = given.settle;
  options.trigger.cooldown = from_seconds(given.cooldown_seconds);
  options.trigger.min_gain = given.min_gain;
  const auto count = [](int64_t value, int64_t& out, const char* argument) {
    check_count(value, argument);
    out = value;
  };
  count(given.min_tokens_per_gpu_step, options.trigger.min_tokens_per_gpu_step,
        "min_tokens_per_gpu_step");
  count(given.updates_per_hour, options.limits.updates_per_hour, "updates_per_hour");
  count(given.moves_per_hour, options.limits.moves_per_hour, "moves_per_hour");
  count(given.max_moves, options.limits.max_moves, "max_moves");
  count(given.max_moves_per_gpu, options.limits.max_moves_per_gpu, "max_moves_per_gpu");
  count(given.max_layers, options.limits.max_layers, "max_layers");
  options.workers.timeout = options.workers.apply_timeout = kForever;
  return options;
}

RebalancerState start_of(const Placement& current) {
  RebalancerState state;
  state.placements.initial = current;
  state.placements.new_term = false;  // what runs is known: no report is waited for
  state.placements.published.placement = current;
  state.placements.published.unix_seconds = kEpochSeconds;
  return state;
}

Now at(double now) { return {TimePoint(kEpoch + from_seconds(now)), kEpochSeconds + now}; }

}  // namespace
}  // namespace eplbd

using namespace eplbd;

struct eplb_rebalancer {
  eplb_rebalancer(const Topology& shape, const RebalancerOptions& options, const Placement& current,
                  double now)
      : topology(shape),
        rebalancer(shape, options, eplbd::at(now), start_of(current)),
        newest(now),
        counted_until(now) {}

  // Later than, or as late as, every earlier call.
  Now at(double now) {
    check_range(now, 0, kMostNow, "now");
    if (now < newest) reject("now", "is before that of an earlier call");
    newest = now;
    return eplbd::at(now);
  }

  void count(std::span<const uint32_t> counts, double from, double until, uint64_t steps, Now now) {
    CountsReport report;
    report.source = "library";
    report.sequence = messages++;
    report.epoch = 1;
    report.since = kEpochSeconds + from;
    report.ts = kEpochSeconds + until;
    report.steps = steps;
    report.running = rebalancer.group().running();
    report.counts = PackedArray<uint32_t>(counts);
    const IngestResult result = rebalancer.ingest(report, now);
    if (result.rejected) reject("now", "two calls cannot count the same moment");
    counted_until = until;
  }

  void report(PlacementId running, const Placement& placement, double apply_seconds, Now now) {
    StateReport state;
    state.source = "library";
    state.sequence = reports++;
    state.epoch = 1;
    state.ts = now.unix_seconds + static_cast<double>(state.sequence) * kReportTick;
    state.running = running;
    state.status = WorkerStatus::applied;
    state.apply_seconds = apply_seconds;
    state.set_map(topology, placement);
    rebalancer.observe(state, now);
  }

  Topology topology;
  Rebalancer rebalancer;
  double newest;         // `now` of the last call
  double counted_until;  // end of the newest counts
  double decided_at = 0;
  uint64_t messages = 0;
  uint64_t reports = 0;
};

void eplb_rebalancer_options_init(eplb_rebalancer_options* options) {
  *options = default_options();
}

void eplb_decision_init(eplb_decision* decision) {
  *decision = {};
  decision->struct_size = sizeof(*decision);
}

eplb_status eplb_rebalancer_new(const eplb_topology* shape, const eplb_rebalancer_options* given,
                                double now, eplb_rebalancer** rebalancer, eplb_error* error) {
  return guarded(error, [&] {
    check_given(rebalancer, "rebalancer");
    *rebalancer = nullptr;
    const Topology topology = topology_of(shape);
    const eplb_rebalancer_options options = sized(given, default_options(), "options");
    check_range(now, 0, kMostNow, "now");
    const Placement current = options.current ? placement_of(topology, options.current, "current")
                                              : Placement::initial(topology);
    *rebalancer = new eplb_rebalancer(topology, options_of(options), current, now);
  });
}

void eplb_rebalancer_free(eplb_rebalancer* rebalancer) { delete rebalancer; }

eplb_status eplb_rebalancer_add(eplb_rebalancer* r, const uint32_t* counts, double seconds,
                                uint64_t steps, double now, eplb_error* error) {
  return guarded(error, [&] {
    check_given(r, "rebalancer");
    check_given(counts, "counts");
    check_range(seconds, 0, kMonthSeconds, "seconds");
    const Now moment = r->at(now);
    const auto cells = static_cast<size_t>(r->topology.layers) * r->topology.logical_experts;
    const double from = std::max(now - seconds, 0.0);
    if (r->messages > 0 && from > r->counted_until) {  // nothing was counted in between
      r->count(std::vector<uint32_t>(cells), r->counted_until, from, 0, moment);
    }
    r->count({counts, cells}, from, now, steps, moment);
  });
}

eplb_status eplb_rebalancer_decide(eplb_rebalancer* r, double now, eplb_decision* out,
                                   int32_t* physical_to_logical, eplb_error* error) {
  return guarded(error, [&] {
    check_given(r, "rebalancer");
    check_given(out, "decision");
    check_given(physical_to_logical, "physical_to_logical");
    const Now moment = r->at(now);
    r->rebalancer.advance(moment);
    const Decision decision = r->rebalancer.decide(moment);
    r->rebalancer.record(decision);
    eplb_decision answer{};
    answer.imbalance = decision.imbalance;
    answer.imbalance_after = decision.imbalance_after;
    answer.moves = decision.moves;
    answer.moves_of_one_gpu = decision.worst_gpu_moves;
    put_text(answer.verdict, to_string(decision.verdict));
    put_text(answer.detail, decision.detail);
    if (decision.verdict == Verdict::update) {
      answer.update = 1;
      answer.id = decision.update->id.version;
      const auto& map = decision.update->placement.map();
      std::copy(map.begin(), map.end(), physical_to_logical);
      r->decided_at = now;
    }
    put_sized(out, answer, "decision");
  });
}

eplb_status eplb_rebalancer_applied(eplb_rebalancer* r, uint64_t id, double now,
                                    eplb_error* error) {
  return guarded(error, [&] {
    check_given(r, "rebalancer");
    const GroupState& group = r->rebalancer.group();
    if (id != group.published().id.version) {
      reject("id", "is " + std::to_string(id) + ", the newest placement is " +
                       std::to_string(group.published().id.version));
    }
    const Now moment = r->at(now);
    r->report(group.published().id, Placement(group.published().placement), now - r->decided_at,
              moment);
  });
}

eplb_status eplb_rebalancer_adopt(eplb_rebalancer* r, const int32_t* physical_to_logical,
                                  double now, eplb_error* error) {
  return guarded(error, [&] {
    check_given(r, "rebalancer");
    const Placement placement =
        placement_of(r->topology, physical_to_logical, "physical_to_logical");
    const Now moment = r->at(now);
    PlacementId id = r->rebalancer.group().published().id;
    ++id.version;
    r->report(id, placement, 0, moment);
  });
}

eplb_status eplb_rebalancer_state(const eplb_rebalancer* r, double now,
                                  int32_t* physical_to_logical, double* loads, eplb_error* error) {
  return guarded(error, [&] {
    check_given(r, "rebalancer");
    check_range(now, r->newest, kMostNow, "now");
    const auto& map = r->rebalancer.group().in_force().map();
    if (physical_to_logical) std::copy(map.begin(), map.end(), physical_to_logical);
    if (!loads) return;
    const std::vector<double> window = r->rebalancer.loads(eplbd::at(now));
    std::copy(window.begin(), window.end(), loads);
  });
}
