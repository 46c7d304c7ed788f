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
  const int32_t regions = state_.grouped ? state_.topology.nodes : 1;
  const int32_t gpus = state_.topology.gpus / regions;
  float before = 0;
  float after = 0;
  for (int32_t first = 0; first < state_.topology.gpus; first += gpus) {
    take_region(first, gpus);
    if (speeds_.empty()) continue;
    counts_.start(loads_, replicas_, speeds_, state_.width);
    before = std::max(before, counts_.peak());
    const float even = std::accumulate(loads_.begin(), loads_.end(), 0.0F) /
                       std::accumulate(speeds_.begin(), speeds_.end(), 0.0F);
    if (counts_.peak() - even > worth) {
      while (const auto recount = counts_.improve(least)) {
        plan_.push_back({{experts_[recount->from], experts_[recount->to]},
                         first * state_.width,
                         (first + gpus) * state_.width});
      }
    }
    after = std::max(after, counts_.peak());
  }
  return before - after;
}

void RecountSearch::take_region(int32_t first_gpu, int32_t gpus) {
  speeds_.clear();
  replicas_at_.assign(state_.experts, 0);
  for (int32_t gpu = first_gpu; gpu < first_gpu + gpus; ++gpu) {
    if (state_.down(gpu)) continue;
    speeds_.push_back(1 / state_.inverse_speed[gpu]);
    for (const int32_t expert : state_.row_of(gpu)) ++replicas_at_[expert];
  }
  std::sort(speeds_.begin(), speeds_.end(), std::greater<>());
  experts_.clear();
  loads_.clear();
  replicas_.clear();
  for (int32_t expert = 0; expert < state_.experts; ++expert) {
    if (replicas_at_[expert] == 0) continue;
    float load = 0;
    for (const auto& scenario : state_.scenarios)
      load += scenario.weight * scenario.expert_load[expert];
    experts_.push_back(expert);
    replicas_.push_back(replicas_at_[expert]);
    loads_.push_back(load * static_cast<float>(replicas_at_[expert]) /
                     static_cast<float>(state_.replicas[expert]));
  }
}

std::optional<ClimbStep> RecountSearch::next() {
  if (done_ == plan_.size()) return std::nullopt;
  const Planned& planned = plan_[done_++];
  ClimbStep step = turn_over(planned);
  if (step.count == 0) step = make_room(planned);
  if (step.count == 0) return std::nullopt;
  return step;
}

template <typename Visit>
void RecountSearch::for_each_spare(const Planned& planned, Visit visit) const {
  state_.now.for_each(planned.recount.from, [&](int32_t slot) {
    if (slot < planned.first_slot || slot >= planned.last_slot || !state_.spare(slot)) return;
    visit(slot, state_.gpu_of[slot]);
  });
}

bool RecountSearch::may_come(int32_t expert, int32_t gpu) const {
  return state_.open(gpu) && !state_.holds(gpu, expert) && state_.group_may_lie_on(expert, gpu);
}

ClimbStep RecountSearch::turn_over(const Planned& planned) {
  const int32_t to = planned.recount.to;
  ClimbStep step;
  double least_harm = std::numeric_limits<double>::infinity();
  for_each_spare(planned, [&](int32_t slot, int32_t gpu) {
    if (!may_come(to, gpu)) return;
    const double harm = turnovers_.change(slot, to);
    if (harm >= least_harm) return;
    least_harm = harm;
    step = {{{slot, to}, {}}, 1, state_.move_cost(slot, to)};
  });
  return step;
}

// All those slots are on GPUs that hold the expert: one goes to the expert of a third GPU's slot,
// and that slot gets the replica.
ClimbStep RecountSearch::make_room(const Planned& planned) {
  const auto [from, to] = planned.recount;
  ClimbStep step;
  float least_harm = std::numeric_limits<float>::infinity();
  for_each_spare(planned, [&, from = from, to = to](int32_t slot, int32_t gpu) {
    for (int32_t third = planned.first_slot; third < planned.last_slot; ++third) {
      const int32_t expert = state_.row[third];
      const int32_t other = state_.gpu_of[third];
      if (expert == kNoExpert || expert == from) continue;
      if (!may_come(to, other) || !may_come(expert, gpu)) continue;
      float harm = -state_.powers[gpu] - state_.powers[other];
      for (const auto& scenario : state_.scenarios) {
        const float here = scenario.share[third] * state_.inverse_speed[gpu];
        const float there = scenario.gained[to] * state_.inverse_speed[other];
        harm += scenario.weight * (state_.power(scenario.rest[slot] + here) +
                                   state_.power(scenario.rest[third] + there));
      }
      if (harm >= least_harm) continue;
      least_harm = harm;
      step = {{{slot, expert}, {third, to}},
              2,
              state_.move_cost(slot, expert) + state_.move_cost(third, to)};
    }
  });
  return step;
}

}  // namespace eplbd
