// SPDX-License-Identifier: Apache-2.0
#include "core/decide/situation.h"

#include <algorithm>
#include <utility>

namespace eplbd {
namespace {

// How long a start without the newest state waits for groups to say what they run.
constexpr Duration kHold = std::chrono::seconds(2);
// With a half-life that tunes itself, rates have this one.
constexpr Duration kRateHalfLife = std::chrono::seconds(10);

}  // namespace

SourceRules source_rules(const RebalancerOptions& options) {
  return {options.workers.engine, options.workers.timeout, options.limits.sources};
}

Duration rate_half_life(const WindowOptions& options) {
  return options.half_life.value_or(kRateHalfLife);
}

Topology topology_of(const Topology& configured, const RebalancerState& state) {
  return state.resized ? resized(configured, *state.resized) : configured;
}

Situation::Situation(const Topology& usual, const RebalancerOptions& given, Now now,
                     RebalancerState recovered)
    : configured(usual),
      options(given),
      state(std::move(recovered)),
      topology(topology_of(configured, state)),
      balancer(make_balancer(given.balancer)),
      sources(topology, source_rules(given), rate_half_life(given.window)),
      window(topology, given.window),
      jump(topology),
      group(topology, state.placements, state.gpus_empty),
      gain(topology),
      clock_ahead(now.unix_seconds - to_seconds(now.steady.time_since_epoch())),
      started(now.steady) {
  sources.arrivals().expect(jump.shares());
  if (state.placements.new_term) hold_until = now.steady + kHold;
}

bool Situation::paused(TimePoint now) const {
  return state.paused &&
         (state.paused_until_unix_seconds == 0 || date(now) < state.paused_until_unix_seconds);
}

std::vector<double> Situation::loads(TimePoint now) const {
  std::vector<double> loads(static_cast<size_t>(topology.layers) * topology.logical_experts);
  window.read(now, loads);
  return loads;
}

bool Situation::gpus_to_change() const {
  const Placement& next = group.pending() ? group.published().placement : group.in_force();
  for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) {
    const bool down = std::ranges::binary_search(gpus_down, gpu);
    if (is_empty(topology, next, gpu) != down) return true;
  }
  return false;
}

}  // namespace eplbd
