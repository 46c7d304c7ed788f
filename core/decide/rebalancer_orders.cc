// What operators change, and what another state changes: see core/decide/rebalancer.h.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "core/decide/rebalancer.h"
#include "core/decide/resize.h"

namespace eplbd {

void Rebalancer::fill_again(int32_t gpu) {
  situation_.group.fill_again(gpu);
  situation_.gpus_ordered = true;
  note_gpus();
}

std::optional<std::string> Rebalancer::set_gpus_down(std::vector<int32_t> down,
                                                     std::vector<int32_t> lost) {
  const int32_t gpus = topology().gpus;
  const int32_t slots_per_gpu = topology().slots_per_gpu();
  const int32_t experts = topology().logical_experts;
  std::sort(down.begin(), down.end());
  std::sort(lost.begin(), lost.end());
  if (!down.empty() && (down.front() < 0 || down.back() >= gpus)) {
    return "there are GPUs 0 to " + std::to_string(gpus - 1);
  }
  const auto live = gpus - static_cast<int32_t>(down.size());
  if (live * slots_per_gpu < experts) {
    return std::to_string(live) + " GPUs with " + std::to_string(slots_per_gpu) +
           " slots each cannot hold " + std::to_string(experts) + " experts";
  }
  const bool fewer = std::ranges::includes(situation_.state.gpus_down, down);
  if (!fewer && group().reported_at() && !group().may_empty_gpus()) {
    return "workers do not say that they can run with a GPU that holds nothing: no "
           "\"inactive_gpus\" among the features of their state";
  }
  situation_.gpus_ordered |= down != situation_.state.gpus_down;
  situation_.state.gpus_down = std::move(down);
  situation_.state.gpus_lost = std::move(lost);
  note_gpus();
  return std::nullopt;
}

void Rebalancer::set_options(const RebalancerOptions& options, Now now) {
  pour(now.steady);
  if (!(options.window == situation_.options.window)) {
    // Nothing is lost: the new window starts from what the old one holds.
    AdaptiveWindow next(topology(), options.window);
    next.jump(loads(now), Duration{0}, now.steady);
    situation_.window = std::move(next);
    gpu_window_.reset();
  }
  situation_.options = options;
  situation_.in_vain.reset();
  situation_.balancer = make_balancer(options.balancer);
  situation_.sources.set_rules(source_rules(options), rate_half_life(options.window));
}

void Rebalancer::pause(double until_unix_seconds) {
  situation_.state.paused = true;
  situation_.state.paused_until_unix_seconds = until_unix_seconds;
}

void Rebalancer::follow(RebalancerState next, Now now) {
  next.placements.heard(situation_.state.placements.highest);
  take_up(std::move(next), now.steady);
  situation_.gain = GainTracker(topology());  // whether updates paid is for who led to know
  bound_dates(now);
}

// Of whichever shape it is. All parts refer to the one topology.
void Rebalancer::take_up(RebalancerState next, TimePoint now) {
  pour(now);
  RebalancerState& state = situation_.state;
  state = std::move(next);
  Topology topology = topology_of(situation_.configured, state);
  if (topology.shape() != situation_.topology.shape()) {
    situation_.topology = std::move(topology);
    situation_.sources.resize(situation_.topology.gpus);
  }
  situation_.group.take_up(state.gpus_empty);
  situation_.gain.adopted();
  situation_.in_vain.reset();
  situation_.gpus_ordered = false;
  last_applied_ = state.placements.published.id;
  in_force_since_ = now;
  gpu_window_.reset();
  note_gpus();
}

// False, and nothing changes, where the group carried over something else.
bool Rebalancer::resize(const CarriedMap& carried, TimePoint now) {
  if (refuses_shape(situation_, carried.shape, now)) return false;
  if (carried_to(situation_, carried.shape) != carried) return false;
  take_up(state_in_shape(situation_, carried), now);
  return true;
}

void Rebalancer::begin_term(uint64_t term) {
  if (term > 0) situation_.state.placements.heard({term - 1, 0});
}

}  // namespace eplbd
