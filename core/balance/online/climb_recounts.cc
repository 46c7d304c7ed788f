// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/climb_recounts.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <limits>
#include <numeric>

namespace eplbd {

RecountSearch::RecountSearch(const LayerState& state, TurnoverSearch& turnovers)
    : state_(state), turnovers_(turnovers) {}

float RecountSearch::plan(float least, float worth) {
  plan_.clear();
  done_ = 0;
  if (state_.twice) return 0;
  const int32_t nodes = state_.grouped ? state_.topology.nodes : 1;
  const int32_t slots = state_.topology.slots / nodes;
  float before = 0;
  float after = 0;
  for (int32_t node = 0; node < nodes; ++node) {
    take_region(node, nodes);
    if (speeds_.empty()) continue;
    counts_.start(loads_, replicas_, speeds_, state_.width);
    before = std::max(before, counts_.peak());
    const float mean = std::accumulate(loads_.begin(), loads_.end(), 0.0F) /
                       std::accumulate(speeds_.begin(), speeds_.end(), 0.0F);
    if (counts_.peak() - mean <= worth) {
      after = std::max(after, counts_.peak());
      continue;
    }
    while (const auto recount = counts_.improve(least)) {
      plan_.push_back(
          {{experts_[recount->from], experts_[recount->to]}, node * slots, (node + 1) * slots});
    }
    after = std::max(after, counts_.peak());
  }
  return before - after;
}

void RecountSearch::take_region(int32_t node, int32_t nodes) {
  const int32_t gpus = state_.topology.gpus / nodes;
  std::vector<int32_t> here(state_.experts);
  speeds_.clear();
  for (int32_t gpu = node * gpus; gpu < (node + 1) * gpus; ++gpu) {
    if (state_.down(gpu)) continue;
    speeds_.push_back(1 / state_.inverse_speed[gpu]);
    for (const int32_t expert : state_.row_of(gpu)) ++here[expert];
  }
  std::sort(speeds_.begin(), speeds_.end(), std::greater<>());
  experts_.clear();
  loads_.clear();
  replicas_.clear();
  for (int32_t expert = 0; expert < state_.experts; ++expert) {
    if (here[expert] == 0) continue;
    float load = 0;
    for (const auto& lane : state_.lanes) load += lane.weight * lane.expert_load[expert];
    experts_.push_back(expert);
    replicas_.push_back(here[expert]);
    loads_.push_back(load * static_cast<float>(here[expert]) /
                     static_cast<float>(state_.replicas[expert]));
  }
}

std::optional<ClimbStep> RecountSearch::next() {
  if (done_ == plan_.size()) return std::nullopt;
  const Planned& planned = plan_[done_++];
  ClimbStep step = turn_over(planned.recount);
  if (step.count == 0) step = make_room(planned.recount);
  if (step.count == 0) return std::nullopt;
  return step;
}

bool RecountSearch::may(int32_t expert, int32_t gpu) const {
  return !state_.down(gpu) && !state_.holds(gpu, expert) && state_.group_may_lie_on(expert, gpu);
}

ClimbStep RecountSearch::turn_over(const Recount& recount) {
  const Planned& planned = plan_[done_ - 1];
  ClimbStep step;
  double least_harm = std::numeric_limits<double>::infinity();
  state_.now.for_each(recount.from, [&](int32_t slot) {
    if (slot < planned.first_slot || slot >= planned.last_slot) return;
    if (!state_.spare(slot) || !may(recount.to, state_.gpu_of[slot])) return;
    const double harm = turnovers_.change(slot, recount.to);
    if (harm >= least_harm) return;
    least_harm = harm;
    step = {{{slot, recount.to}, {}}, 1, state_.move_cost(slot, recount.to)};
  });
  return step;
}

// All those slots are on GPUs that hold the expert: one goes to the expert of a third GPU's slot,
// and that slot gets the replica.
ClimbStep RecountSearch::make_room(const Recount& recount) {
  const Planned& planned = plan_[done_ - 1];
  ClimbStep step;
  float least_harm = std::numeric_limits<float>::infinity();
  state_.now.for_each(recount.from, [&](int32_t slot) {
    if (slot < planned.first_slot || slot >= planned.last_slot || !state_.spare(slot)) return;
    const int32_t gpu = state_.gpu_of[slot];
    for (int32_t third = planned.first_slot; third < planned.last_slot; ++third) {
      const int32_t expert = state_.row[third];
      const int32_t other = state_.gpu_of[third];
      if (expert == kNoExpert || expert == recount.from) continue;
      if (!may(recount.to, other) || !may(expert, gpu)) continue;
      float harm = -state_.term[gpu] - state_.term[other];
      for (const auto& lane : state_.lanes) {
        harm += lane.weight *
                (state_.power(lane.rest[slot] + lane.share[third] * state_.inverse_speed[gpu]) +
                 state_.power(lane.rest[third] +
                              lane.gained[recount.to] * state_.inverse_speed[other]));
      }
      if (harm >= least_harm) continue;
      least_harm = harm;
      step = {{{slot, expert}, {third, recount.to}},
              2,
              state_.move_cost(slot, expert) + state_.move_cost(third, recount.to)};
    }
  });
  return step;
}

}  // namespace eplbd
