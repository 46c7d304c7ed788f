// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/layer_state.h"

#include <algorithm>
#include <cmath>

namespace eplbd {
namespace {

// In one order, but not one after the other: additions wait for each other.
double sum_of(std::span<const double> values) {
  double sums[8] = {};
  const size_t whole = values.size() / 8 * 8;
  for (size_t i = 0; i < whole; i += 8) {
    for (size_t k = 0; k < 8; ++k) sums[k] += values[i + k];
  }
  for (size_t i = whole; i < values.size(); ++i) sums[0] += values[i];
  double sum = 0;
  for (const double s : sums) sum += s;
  return sum;
}

}  // namespace

void Holders::clear(int32_t experts, int32_t slots) {
  first_.assign(experts, -1);
  next_.assign(slots, -1);
}

void Holders::add(int32_t expert, int32_t slot) {
  next_[slot] = first_[expert];
  first_[expert] = slot;
}

void Holders::remove(int32_t expert, int32_t slot) {
  int32_t* at = &first_[expert];
  while (*at != slot) at = &next_[*at];
  *at = next_[slot];
}

LayerState::LayerState(const Topology& shape, std::span<const int32_t> gpus_down, bool by_groups)
    : topology(shape),
      grouped(by_groups),
      experts(shape.logical_experts),
      width(shape.slots_per_gpu()),
      twice(width > experts),
      inverse_speed(padded(shape.gpus)),
      slot_speed(padded(shape.slots)),
      live(padded(shape.gpus)),
      closed(shape.gpus),
      gpu_of(shape.slots),
      arrivals(shape.gpus),
      powers(padded(shape.gpus)),
      fall(shape.slots),
      rise(shape.slots),
      fallen(shape.slots),
      risen(shape.slots),
      relief(padded(experts)),
      burden(padded(experts)),
      room(padded(shape.slots)),
      changed_(experts),
      touched_(shape.gpus),
      weighed_(experts) {
  for (int32_t gpu = 0; gpu < shape.gpus; ++gpu) {
    std::fill_n(gpu_of.begin() + gpu * width, width, gpu);
    if (std::find(gpus_down.begin(), gpus_down.end(), gpu) != gpus_down.end()) continue;
    inverse_speed[gpu] = static_cast<float>(1 / shape.gpu_speed(gpu));
    std::fill_n(slot_speed.begin() + gpu * width, width, inverse_speed[gpu]);
    live[gpu] = 1;
    live_gpus += 1;
    total_speed += shape.gpu_speed(gpu);
  }
}

void LayerState::start(std::span<const int32_t> slot_to_expert,
                       std::span<const WeighedLoad> loads) {
  scenarios.resize(loads.size());
  slot_scenarios_.resize(loads.size());
  for (size_t i = 0; i < loads.size(); ++i) take_load(scenarios[i], loads[i]);
  mean = sum_of(loads[0].loads) / total_speed;

  raised_ = false;
  doublings = 0;
  row.assign(slot_to_expert.begin(), slot_to_expert.end());
  base_row = row;
  arrived.assign(topology.slots, 0);
  spare_mask.assign(padded(topology.slots), kNever);
  std::fill(arrivals.begin(), arrivals.end(), 0);
  count_replicas();
  for (int32_t expert = 0; expert < experts; ++expert) share_out(expert);
  for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) touched_.add(gpu);
  weigh_touched();
}

void LayerState::count_replicas() {
  now.clear(experts, topology.slots);
  replicas.assign(experts, 0);
  replicated.clear();
  if (grouped) on_node_.assign(static_cast<size_t>(topology.groups) * topology.nodes, 0);
  for (int32_t slot = 0; slot < topology.slots; ++slot) {
    const int32_t expert = row[slot];
    if (expert == kNoExpert) continue;
    now.add(expert, slot);
    if (++replicas[expert] == 2) replicated.push_back(expert);
    if (grouped) ++on_node(expert, gpu_of[slot]);
  }
  base = now;
  if (!grouped) return;
  spread_.assign(topology.groups, 0);
  for (size_t i = 0; i < on_node_.size(); ++i) spread_[i / topology.nodes] += on_node_[i] > 0;
}

// Slots of the expert's group on the GPU's node.
int32_t& LayerState::on_node(int32_t expert, int32_t gpu) {
  const auto group = static_cast<size_t>(expert / topology.experts_per_group());
  return on_node_[group * topology.nodes + topology.node_of(gpu)];
}

void LayerState::take_load(Scenario& scenario, const WeighedLoad& load) {
  const double mean_load = sum_of(load.loads) / total_speed;
  const double scale = mean_load > 0 ? 1 / mean_load : 0;
  scenario.weight = static_cast<float>(load.weight);
  scenario.expert_load.resize(experts);
  for (int32_t expert = 0; expert < experts; ++expert) {
    scenario.expert_load[expert] = static_cast<float>(load.loads[expert] * scale);
  }
  scenario.gained.resize(padded(experts));
  scenario.share.assign(topology.slots, 0);
  scenario.gpu_load.resize(padded(topology.gpus));
  scenario.rest.resize(padded(topology.slots));
}

void LayerState::put(std::span<const SlotChange> changes) {
  changed_.clear();
  const auto note = [&](int32_t expert) {
    if (expert != kNoExpert) changed_.add(expert);
  };
  for (const SlotChange& change : changes) {
    note(row[change.slot]);
    note(change.expert);
    put(change.slot, change.expert);
    touched_.add(gpu_of[change.slot]);
  }
  for (const int32_t expert : changed_) share_out(expert);
  weigh_touched();
}

void LayerState::put(int32_t slot, int32_t expert) {
  const int32_t gpu = gpu_of[slot];
  if (const int32_t old = row[slot]; old != kNoExpert) {
    now.remove(old, slot);
    if (--replicas[old] == 1) {
      *std::find(replicated.begin(), replicated.end(), old) = replicated.back();
      replicated.pop_back();
    }
    arrivals[gpu] -= arrived[slot];
    for (Scenario& scenario : scenarios) scenario.share[slot] = 0;
    if (grouped) --on_node(old, gpu);
  }
  row[slot] = expert;
  arrived[slot] = 0;
  spare_mask[slot] = kNever;
  if (expert == kNoExpert) return;
  now.add(expert, slot);
  if (++replicas[expert] == 2) replicated.push_back(expert);
  arrived[slot] = expert != base_row[slot] && copies(base, gpu, expert) == 0;
  arrivals[gpu] += arrived[slot];
  if (grouped) ++on_node(expert, gpu);
}

// After its number of replicas, or where they lie, has changed.
void LayerState::share_out(int32_t expert) {
  const auto count = static_cast<float>(replicas[expert]);
  for (Scenario& scenario : scenarios) {
    scenario.gained[expert] = scenario.expert_load[expert] / (count + 1);
    if (count == 0) continue;
    const float share = scenario.expert_load[expert] / count;
    now.for_each(expert, [&](int32_t slot) { scenario.share[slot] = share; });
  }
  now.for_each(expert, [&](int32_t slot) {
    const float speed = inverse_speed[gpu_of[slot]];
    fall[slot] = speed / (count + 1);
    rise[slot] = count > 1 ? speed / (count - 1) : 0;
    spare_mask[slot] = spare(slot) && open(gpu_of[slot]) ? 0 : kNever;
    touched_.add(gpu_of[slot]);
  });
}

void LayerState::weigh_touched() {
  for (const int32_t gpu : touched_) {
    weigh(gpu);
    if (raised_) weigh_changes(gpu);
  }
  if (raised_) weigh_experts();
  touched_.clear();
}

void LayerState::weigh(int32_t gpu) {
  const auto first = static_cast<size_t>(gpu) * width;
  const float speed = inverse_speed[gpu];
  for (Scenario& scenario : scenarios) {
    const float* const share = scenario.share.data() + first;
    float* const rest = scenario.rest.data() + first;
    float load = 0;
    for (int32_t i = 0; i < width; ++i) load += share[i];
    load *= speed;
    for (int32_t i = 0; i < width; ++i) rest[i] = load - share[i] * speed;
    scenario.gpu_load[gpu] = load;
  }
}

void LayerState::weigh_changes(int32_t gpu) {
  const auto first = static_cast<size_t>(gpu) * width;
  float sum = 0;
  for (size_t i = 0; i < scenarios.size(); ++i) {
    const Scenario& scenario = scenarios[i];
    slot_scenarios_[i] = {scenario.weight, scenario.gpu_load[gpu], scenario.share.data() + first};
    sum += scenario.weight * power(scenario.gpu_load[gpu]);
  }
  powers[gpu] = sum;
  slot_changes(slot_scenarios_, sum, std::span(fall).subspan(first, width),
               std::span(rise).subspan(first, width), doublings, &fallen[first], &risen[first]);
}

// Those of touched GPUs, each once: with few experts on many GPUs these hold all of them.
void LayerState::weigh_experts() {
  for (const int32_t gpu : touched_) {
    for (const int32_t expert : row_of(gpu)) {
      if (expert != kNoExpert && weighed_.add(expert)) weigh_replicas(expert);
    }
  }
  weighed_.clear();
}

void LayerState::weigh_replicas(int32_t expert) {
  float falls = 0;
  float rises = 0;
  now.for_each(expert, [&](int32_t slot) {
    falls += fallen[slot];
    rises += risen[slot];
  });
  relief[expert] = falls;
  burden[expert] = rises;
  now.for_each(expert,
               [&](int32_t slot) { room[slot] = powers[gpu_of[slot]] - (rises - risen[slot]); });
}

void LayerState::raise_to(int to) {
  doublings = to;
  raised_ = true;
  for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) weigh_changes(gpu);
  for (int32_t expert = 0; expert < experts; ++expert) weigh_replicas(expert);
}

bool LayerState::group_may_lie_on_node(int32_t group, int32_t gpu) const {
  const auto nodes =
      std::span(on_node_).subspan(static_cast<size_t>(group) * topology.nodes, topology.nodes);
  if (nodes[topology.node_of(gpu)] > 0) return true;
  const auto count = std::count_if(nodes.begin(), nodes.end(), [](int32_t n) { return n > 0; });
  return count < std::max(spread_[group], 1);
}

}  // namespace eplbd
