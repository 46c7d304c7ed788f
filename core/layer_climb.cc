// SPDX-License-Identifier: Apache-2.0
#include "core/layer_climb.h"

#include <algorithm>
#include <cmath>

#include "core/placement.h"

namespace eplbd {
namespace {

constexpr int kMostDoublings = 1;
constexpr double kNoChange = 1e-9;  // of the sum of powers: rounding

}  // namespace

LayerClimb::LayerClimb(const Topology& topology, std::span<const int32_t> gpus_down, bool grouped)
    : topology_(topology),
      grouped_(grouped),
      experts_(topology.logical_experts),
      width_(topology.slots_per_gpu()),
      speed_(topology.gpus),
      inverse_speed_(topology.slots),
      holders_(topology.logical_experts),
      changes_(topology.slots) {
  for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) speed_[gpu] = topology.gpu_speed(gpu);
  for (const int32_t gpu : gpus_down) speed_[gpu] = 0;
  for (const double speed : speed_) live_gpus_ += speed > 0;
  for (int32_t slot = 0; slot < topology.slots; ++slot) {
    const double speed = speed_[topology.gpu_of(slot)];
    inverse_speed_[slot] = speed > 0 ? static_cast<float>(1 / speed) : 0;
  }
}

bool LayerClimb::start(std::span<const int32_t> slot_to_expert, std::span<const double> loads,
                       std::span<const double> steady, double steady_weight) {
  const bool two = !steady.empty() && steady_weight > 0;
  lanes_.resize(two ? 2 : 1);
  take_loads(lanes_[0], static_cast<float>(two ? 1 - steady_weight : 1), loads);
  if (two) take_loads(lanes_[1], static_cast<float>(steady_weight), steady);

  doublings_ = 0;
  row_.assign(topology_.slots, kNoExpert);
  replicas_.assign(experts_, 0);
  copies_.assign(static_cast<size_t>(topology_.gpus) * experts_, 0);
  for (auto& gpus : holders_) gpus.clear();
  if (grouped_) on_node_.assign(static_cast<size_t>(topology_.groups) * topology_.nodes, 0);
  for (int32_t slot = 0; slot < topology_.slots; ++slot) put(slot, slot_to_expert[slot]);
  base_copies_ = copies_;
  if (grouped_) {
    spread_.assign(topology_.groups, 0);
    for (size_t i = 0; i < on_node_.size(); ++i) spread_[i / topology_.nodes] += on_node_[i] > 0;
  }
  weigh();
  return repair();
}

double LayerClimb::expected_peak(double sharpness) const {
  double result = 0;
  for (const Lane& lane : lanes_) {
    const float peak = *std::max_element(lane.gpu_load.begin(), lane.gpu_load.end());
    double sum = 0;
    for (int32_t gpu = 0; gpu < topology_.gpus; ++gpu) {
      const double below = sharpness * (peak - lane.gpu_load[gpu]);
      if (below < 20 && !down(gpu)) sum += std::exp(-below);
    }
    result += lane.weight * (peak + std::log(sum) / sharpness);
  }
  return result;
}

std::optional<ClimbStep> LayerClimb::improve(double least_gain) {
  while (true) {
    Candidate best;
    best.merit = least_gain;
    const int32_t gpu = fullest_gpu();
    try_exchanges(gpu, best);
    try_turnovers(gpu, best);
    if (best.step.count > 0) {
      for (int32_t i = 0; i < best.step.count; ++i) {
        put(best.step.changes[i].slot, best.step.changes[i].expert);
      }
      weigh();
      return best.step;
    }
    // A softer maximum sees further, a harder one ends closer.
    if (doublings_ == kMostDoublings) return std::nullopt;
    ++doublings_;
    weigh();
  }
}

float LayerClimb::power(float x) const {
  x *= x;
  x *= x;
  x *= x;
  return doublings_ == 0 ? x : x * x;
}

int32_t LayerClimb::move_cost(int32_t slot, int32_t expert) const {
  const int32_t gpu = topology_.gpu_of(slot);
  const int32_t old = row_[slot];
  return (base_copies_[cell(gpu, expert)] == 0) -
         (old != kNoExpert && base_copies_[cell(gpu, old)] == 0);
}

bool LayerClimb::group_may_lie_on(int32_t expert, int32_t gpu) const {
  if (!grouped_) return true;
  const int32_t group = expert / topology_.experts_per_group();
  const auto nodes =
      std::span(on_node_).subspan(static_cast<size_t>(group) * topology_.nodes, topology_.nodes);
  if (nodes[topology_.node_of(gpu)] > 0) return true;
  const auto count = std::count_if(nodes.begin(), nodes.end(), [](int32_t n) { return n > 0; });
  return count < std::max(spread_[group], 1);
}

void LayerClimb::take_loads(Lane& lane, float weight, std::span<const double> loads) {
  double speed = 0;
  for (const double s : speed_) speed += s;
  double sum = 0;
  for (const double load : loads) sum += load;
  const double mean = sum / speed;
  if (&lane == &lanes_[0]) mean_ = mean;
  lane.weight = weight;
  lane.expert_load.resize(loads.size());
  for (size_t expert = 0; expert < loads.size(); ++expert) {
    lane.expert_load[expert] = mean > 0 ? static_cast<float>(loads[expert] / mean) : 0;
  }
}

void LayerClimb::put(int32_t slot, int32_t expert) {
  const int32_t gpu = topology_.gpu_of(slot);
  const auto count = [&](int32_t which, int32_t change) {
    if (which == kNoExpert) return;
    replicas_[which] += change;
    const auto copies = copies_[cell(gpu, which)] += static_cast<uint16_t>(change);
    auto& gpus = holders_[which];
    if (change < 0 && copies == 0) gpus.erase(std::find(gpus.begin(), gpus.end(), gpu));
    if (change > 0 && copies == 1) gpus.push_back(gpu);
    if (grouped_) {
      on_node_[static_cast<size_t>(which / topology_.experts_per_group()) * topology_.nodes +
               topology_.node_of(gpu)] += change;
    }
  };
  count(row_[slot], -1);
  count(expert, 1);
  row_[slot] = expert;
}

void LayerClimb::weigh() {
  double sum = 0;
  for (Lane& lane : lanes_) {
    weigh(lane);
    for (const float term : lane.gpu_term) sum += lane.weight * term;
  }
  // The soft maximum is (sum / GPUs)^(1 / power).
  const double power = 8 << doublings_;
  slope_ = sum > 0 ? std::pow(sum / live_gpus_, 1 / power) / (power * sum) : 0;
}

void LayerClimb::weigh(Lane& lane) {
  lane.share.resize(topology_.slots);
  lane.slot_load.resize(topology_.slots);
  lane.slot_term.resize(topology_.slots);
  lane.gpu_load.assign(topology_.gpus, 0);
  lane.gpu_term.resize(topology_.gpus);
  for (int32_t gpu = 0; gpu < topology_.gpus; ++gpu) {
    const int32_t first = gpu * width_;
    float load = 0;
    for (int32_t slot = first; slot < first + width_; ++slot) {
      const int32_t expert = row_[slot];
      lane.share[slot] = expert == kNoExpert
                             ? 0
                             : lane.expert_load[expert] / static_cast<float>(replicas_[expert]);
      load += lane.share[slot] * inverse_speed_[slot];
    }
    lane.gpu_load[gpu] = load;
    lane.gpu_term[gpu] = power(load);
    std::fill_n(lane.slot_load.begin() + first, width_, load);
    std::fill_n(lane.slot_term.begin() + first, width_, lane.gpu_term[gpu]);
  }
}

int32_t LayerClimb::fullest_gpu() const {
  int32_t fullest = 0;
  float most = -1;
  for (int32_t gpu = 0; gpu < topology_.gpus; ++gpu) {
    float term = 0;
    for (const Lane& lane : lanes_) term += lane.weight * lane.gpu_term[gpu];
    if (term > most) {
      most = term;
      fullest = gpu;
    }
  }
  return fullest;
}

// `change` is that of the sum of powers.
void LayerClimb::consider(const ClimbStep& step, double change, Candidate& best) const {
  if (change > -kNoChange) return;
  const double merit = -change * slope_ / std::max(step.moves, 1);
  if (merit <= best.merit) return;
  best.step = step;
  best.merit = merit;
}

void LayerClimb::try_exchanges(int32_t gpu, Candidate& best) {
  for (int32_t slot = gpu * width_; slot < (gpu + 1) * width_; ++slot) try_exchanges_of(slot, best);
}

// With every slot of every other GPU: first what it would change, for all at once, then whether
// those that would pay are allowed.
void LayerClimb::try_exchanges_of(int32_t slot, Candidate& best) {
  const int32_t gpu = topology_.gpu_of(slot);
  const int32_t mine = row_[slot];
  std::fill(changes_.begin(), changes_.end(), 0.0F);
  for (const Lane& lane : lanes_) {
    const float share = lane.share[slot];
    const float load = lane.gpu_load[gpu];
    const float term = lane.gpu_term[gpu];
    const float speed = inverse_speed_[slot];
    for (int32_t other = 0; other < topology_.slots; ++other) {
      const float shift = share - lane.share[other];
      changes_[other] +=
          lane.weight * (power(load - shift * speed) - term - lane.slot_term[other] +
                         power(lane.slot_load[other] + shift * inverse_speed_[other]));
    }
  }
  for (int32_t other = 0; other < topology_.slots; ++other) {
    // A step costs at least one move, so this is the most it can be worth.
    if (-changes_[other] * slope_ <= best.merit) continue;
    const int32_t where = topology_.gpu_of(other);
    const int32_t theirs = row_[other];
    if (where == gpu || down(where) || holds(where, mine) || holds(gpu, theirs)) continue;
    if (!group_may_lie_on(mine, where) || !group_may_lie_on(theirs, gpu)) continue;
    const ClimbStep step{
        {{slot, theirs}, {other, mine}}, 2, move_cost(slot, theirs) + move_cost(other, mine)};
    consider(step, changes_[other], best);
  }
}

// A replica that can go: another GPU holds its expert, and its own GPU not twice.
bool LayerClimb::spare(int32_t slot) const {
  const int32_t old = row_[slot];
  return old != kNoExpert && replicas_[old] > 1 && copies_[cell(topology_.gpu_of(slot), old)] == 1;
}

// A spare replica of this GPU for any expert; one of another GPU for one of this GPU's.
void LayerClimb::try_turnovers(int32_t gpu, Candidate& best) {
  const int32_t first = gpu * width_;
  std::vector<int32_t> spares;
  for (int32_t slot = first; slot < first + width_; ++slot) {
    if (spare(slot)) spares.push_back(slot);
  }
  for (int32_t expert = 0; expert < experts_ && !spares.empty(); ++expert) {
    const double relieved = relief(expert);
    for (const int32_t slot : spares) try_turnover(slot, expert, relieved, best);
  }
  for (int32_t i = first; i < first + width_; ++i) {
    const int32_t expert = row_[i];
    const double relieved = relief(expert);
    // More is not won.
    if (relieved * slope_ <= best.merit) continue;
    for (int32_t slot = 0; slot < topology_.slots; ++slot) {
      if (topology_.gpu_of(slot) != gpu && spare(slot)) try_turnover(slot, expert, relieved, best);
    }
  }
}

void LayerClimb::try_turnover(int32_t slot, int32_t expert, double relief, Candidate& best) {
  const int32_t gpu = topology_.gpu_of(slot);
  if (down(gpu) || holds(gpu, expert) || !group_may_lie_on(expert, gpu)) return;
  // As if the replicas of the old expert did not rise: cheap, and the true change is never better.
  if ((relief - added_change(slot, expert)) * slope_ <= best.merit) return;
  const ClimbStep step{{{slot, expert}, {}}, 1, move_cost(slot, expert)};
  consider(step, turnover_change(slot, expert), best);
}

// How far the sum of powers falls on the GPUs that hold an expert when one more does.
double LayerClimb::relief(int32_t expert) const {
  double sum = 0;
  const auto count = static_cast<float>(replicas_[expert]);
  for (const Lane& lane : lanes_) {
    const float fall = lane.expert_load[expert] / (count * (count + 1));
    for (const int32_t gpu : holders_[expert]) {
      const float load = lane.gpu_load[gpu] - fall * inverse_speed_[gpu * width_];
      sum += lane.weight * (lane.gpu_term[gpu] - power(load));
    }
  }
  return sum;
}

// Of the sum of powers, on the slot's own GPU.
double LayerClimb::added_change(int32_t slot, int32_t expert) const {
  const int32_t gpu = topology_.gpu_of(slot);
  double change = 0;
  for (const Lane& lane : lanes_) {
    const float gained = lane.expert_load[expert] / static_cast<float>(replicas_[expert] + 1);
    const float load = lane.gpu_load[gpu] + (gained - lane.share[slot]) * inverse_speed_[slot];
    change += lane.weight * (power(load) - lane.gpu_term[gpu]);
  }
  return change;
}

// Of the sum of powers. Requires: the slot's GPU does not hold the expert.
double LayerClimb::turnover_change(int32_t slot, int32_t expert) const {
  const int32_t gpu = topology_.gpu_of(slot);
  const int32_t old = row_[slot];
  const auto count = static_cast<float>(replicas_[expert]);
  const float old_count = old == kNoExpert ? 0 : static_cast<float>(replicas_[old]);
  double change = 0;
  for (const Lane& lane : lanes_) {
    const float gained = lane.expert_load[expert] / (count + 1);
    const float fall = count > 0 ? lane.expert_load[expert] / count - gained : 0;
    const float rise = old_count > 1 ? lane.expert_load[old] / (old_count * (old_count - 1)) : 0;
    const auto add = [&](int32_t g, float shift) {
      const float load = lane.gpu_load[g] + shift * inverse_speed_[g * width_];
      change += lane.weight * (power(load) - lane.gpu_term[g]);
    };
    add(gpu, gained - lane.share[slot]);
    for (const int32_t g : holders_[expert]) {
      add(g, (old != kNoExpert && holds(g, old) ? rise : 0) - fall);
    }
    if (old == kNoExpert) continue;
    for (const int32_t g : holders_[old]) {
      if (g != gpu && !holds(g, expert)) add(g, rise);
    }
  }
  return change;
}

}  // namespace eplbd
