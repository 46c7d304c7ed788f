// SPDX-License-Identifier: Apache-2.0
#include "core/layer_climb.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/placement.h"

namespace eplbd {
namespace {

double eighth_power(double x) {
  x *= x;
  x *= x;
  return x * x;
}

}  // namespace

LayerClimb::LayerClimb(const Topology& topology, std::span<const int32_t> gpus_down, bool grouped)
    : topology_(topology),
      grouped_(grouped),
      experts_(topology.logical_experts),
      width_(topology.slots_per_gpu()),
      speed_(topology.gpus),
      base_copies_(static_cast<size_t>(topology.gpus) * topology.logical_experts),
      shift_(topology.gpus) {
  for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) speed_[gpu] = topology.gpu_speed(gpu);
  for (const int32_t gpu : gpus_down) speed_[gpu] = 0;
}

bool LayerClimb::start(std::span<const int32_t> slot_to_expert, std::span<const double> loads) {
  base_.assign(slot_to_expert.begin(), slot_to_expert.end());
  row_ = base_;
  recount();
  base_copies_ = copies_;
  double speed = 0;
  for (const double s : speed_) speed += s;
  double sum = 0;
  for (const double load : loads) sum += load;
  mean_ = sum / speed;
  load_.assign(loads.begin(), loads.end());
  if (mean_ > 0) {
    for (double& load : load_) load /= mean_;
  }
  if (grouped_) {
    spread_.assign(topology_.groups, 0);
    for (size_t i = 0; i < on_node_.size(); ++i) spread_[i / topology_.nodes] += on_node_[i] > 0;
  }
  vacate(width_ > experts_);
  const bool complete = fill();
  weigh();
  return complete;
}

double LayerClimb::imbalance() const { return gpu_load_[fullest_gpu()]; }

std::optional<SearchStep> LayerClimb::improve(double least_gain) {
  Candidate best;
  const int32_t gpu = fullest_gpu();
  try_exchanges(gpu, least_gain, best);
  try_turnovers(gpu, least_gain, best);
  if (best.count == 0) return std::nullopt;
  SearchStep step;
  step.count = best.count;
  step.moves = best.moves;
  for (int32_t i = 0; i < best.count; ++i) step.changes[i] = best.changes[i];
  const double before = potential_;
  for (int32_t i = 0; i < best.count; ++i) put(best.changes[i].slot, best.changes[i].expert);
  weigh();
  const double gpus = topology_.gpus;
  step.gain = std::pow(before / gpus, 0.125) - std::pow(potential_ / gpus, 0.125);
  return step;
}

int32_t LayerClimb::move_cost(int32_t slot, int32_t expert) const {
  const size_t row = static_cast<size_t>(topology_.gpu_of(slot)) * experts_;
  const int32_t old = row_[slot];
  return (base_copies_[row + expert] == 0) - (old != kNoExpert && base_copies_[row + old] == 0);
}

bool LayerClimb::group_may_lie_on(int32_t expert, int32_t gpu) const {
  if (!grouped_) return true;
  const int32_t group = expert / topology_.experts_per_group();
  const auto row =
      std::span(on_node_).subspan(static_cast<size_t>(group) * topology_.nodes, topology_.nodes);
  if (row[topology_.node_of(gpu)] > 0) return true;
  const auto nodes = std::count_if(row.begin(), row.end(), [](int32_t n) { return n > 0; });
  return nodes < std::max(spread_[group], 1);
}

void LayerClimb::vacate(bool keep_duplicates) {
  for (int32_t slot = 0; slot < topology_.slots; ++slot) {
    if (row_[slot] == kNoExpert) continue;
    const int32_t gpu = topology_.gpu_of(slot);
    const bool second =
        !keep_duplicates && copies_[static_cast<size_t>(gpu) * experts_ + row_[slot]] > 1;
    if (down(gpu) || second) put(slot, kNoExpert);
  }
}

bool LayerClimb::fill() {
  // Experts without a place first, the heaviest first; then what the GPU lacks most.
  std::vector<int32_t> lost;
  for (int32_t expert = 0; expert < experts_; ++expert) {
    if (replicas_[expert] == 0) lost.push_back(expert);
  }
  std::stable_sort(lost.begin(), lost.end(),
                   [&](int32_t a, int32_t b) { return load_[a] > load_[b]; });
  weigh();
  for (const int32_t expert : lost) {
    int32_t best = -1;
    double best_load = std::numeric_limits<double>::infinity();
    // An empty slot, or else one of a spare replica; on the GPU that is then least full.
    for (const bool spare : {false, true}) {
      for (int32_t slot = 0; slot < topology_.slots && (best < 0 || !spare || best_load > 0);
           ++slot) {
        const int32_t gpu = topology_.gpu_of(slot);
        const int32_t old = row_[slot];
        if (down(gpu) || !group_may_lie_on(expert, gpu)) continue;
        if (spare ? old == kNoExpert || replicas_[old] < 2 : old != kNoExpert) continue;
        const double freed = old == kNoExpert ? 0 : share(old);
        const double load = gpu_load_[gpu] + (load_[expert] - freed) / speed_[gpu];
        if (load < best_load) {
          best_load = load;
          best = slot;
        }
      }
      if (best >= 0) break;
    }
    if (best < 0) return false;
    put(best, expert);
    weigh();
  }
  for (int32_t slot = 0; slot < topology_.slots; ++slot) {
    const int32_t gpu = topology_.gpu_of(slot);
    if (down(gpu) || row_[slot] != kNoExpert) continue;
    int32_t best = -1;
    double best_potential = std::numeric_limits<double>::infinity();
    for (int32_t expert = 0; expert < experts_; ++expert) {
      const bool doubled = holds(gpu, expert);
      if ((doubled && width_ <= experts_) || !group_may_lie_on(expert, gpu)) continue;
      const double potential = potential_after_turnover(slot, expert);
      if (potential < best_potential) {
        best_potential = potential;
        best = expert;
      }
    }
    if (best < 0) return false;
    put(slot, best);
    weigh();
  }
  return true;
}

void LayerClimb::put(int32_t slot, int32_t expert) {
  const int32_t gpu = topology_.gpu_of(slot);
  const int32_t old = row_[slot];
  const auto count = [&](int32_t which, int32_t change) {
    if (which == kNoExpert) return;
    replicas_[which] += change;
    copies_[static_cast<size_t>(gpu) * experts_ + which] += change;
    if (grouped_) {
      on_node_[static_cast<size_t>(which / topology_.experts_per_group()) * topology_.nodes +
               topology_.node_of(gpu)] += change;
    }
  };
  count(old, -1);
  count(expert, 1);
  row_[slot] = expert;
}

void LayerClimb::recount() {
  replicas_.assign(experts_, 0);
  copies_.assign(static_cast<size_t>(topology_.gpus) * experts_, 0);
  if (grouped_) on_node_.assign(static_cast<size_t>(topology_.groups) * topology_.nodes, 0);
  for (int32_t slot = 0; slot < topology_.slots; ++slot) {
    const int32_t expert = row_[slot];
    row_[slot] = kNoExpert;
    put(slot, expert);
  }
}

double LayerClimb::gpu_term(double gpu_load, int32_t gpu) const {
  return down(gpu) ? 0 : eighth_power(gpu_load);
}

void LayerClimb::weigh() {
  gpu_load_.assign(topology_.gpus, 0);
  for (int32_t slot = 0; slot < topology_.slots; ++slot) {
    const int32_t gpu = topology_.gpu_of(slot);
    if (row_[slot] != kNoExpert) gpu_load_[gpu] += share(row_[slot]) / speed_[gpu];
  }
  potential_ = 0;
  for (int32_t gpu = 0; gpu < topology_.gpus; ++gpu) potential_ += gpu_term(gpu_load_[gpu], gpu);
}

int32_t LayerClimb::fullest_gpu() const {
  return static_cast<int32_t>(std::max_element(gpu_load_.begin(), gpu_load_.end()) -
                              gpu_load_.begin());
}

void LayerClimb::consider(const Candidate& candidate, double least_gain, Candidate& best) const {
  const double gpus = topology_.gpus;
  if (candidate.potential >= potential_) return;
  const double gain =
      std::pow(potential_ / gpus, 0.125) - std::pow(candidate.potential / gpus, 0.125);
  const double moves = std::max(candidate.moves, 1);
  if (gain < least_gain * moves || gain / moves <= best.merit) return;
  best = candidate;
  best.merit = gain / moves;
}

void LayerClimb::try_exchanges(int32_t gpu, double least_gain, Candidate& best) const {
  for (int32_t a = gpu * width_; a < (gpu + 1) * width_; ++a) {
    const int32_t mine = row_[a];
    for (int32_t b = 0; b < topology_.slots; ++b) {
      const int32_t other = topology_.gpu_of(b);
      const int32_t theirs = row_[b];
      if (other == gpu || down(other) || share(theirs) >= share(mine)) continue;
      if (holds(other, mine) || holds(gpu, theirs)) continue;
      if (!group_may_lie_on(mine, other) || !group_may_lie_on(theirs, gpu)) continue;
      const double shift = share(mine) - share(theirs);
      Candidate candidate{{{a, theirs}, {b, mine}}, 2, 0, 0, 0};
      candidate.potential = potential_ - gpu_term(gpu_load_[gpu], gpu) -
                            gpu_term(gpu_load_[other], other) +
                            gpu_term(gpu_load_[gpu] - shift / speed_[gpu], gpu) +
                            gpu_term(gpu_load_[other] + shift / speed_[other], other);
      candidate.moves = move_cost(a, theirs) + move_cost(b, mine);
      consider(candidate, least_gain, best);
    }
  }
}

double LayerClimb::potential_after_turnover(int32_t slot, int32_t expert) const {
  const int32_t gpu = topology_.gpu_of(slot);
  const int32_t old = row_[slot];
  std::fill(shift_.begin(), shift_.end(), 0.0);
  const double new_share = load_[expert] / (replicas_[expert] + 1);
  const double fall = replicas_[expert] > 0 ? share(expert) - new_share : 0;
  const double rise = old == kNoExpert ? 0 : load_[old] / (replicas_[old] - 1) - share(old);
  for (int32_t g = 0; g < topology_.gpus; ++g) {
    if (holds(g, expert)) shift_[g] -= fall;
    if (old != kNoExpert && g != gpu && holds(g, old)) shift_[g] += rise;
  }
  shift_[gpu] += new_share - (old == kNoExpert ? 0 : share(old));
  double potential = potential_;
  for (int32_t g = 0; g < topology_.gpus; ++g) {
    if (shift_[g] == 0) continue;
    potential += gpu_term(gpu_load_[g] + shift_[g] / speed_[g], g) - gpu_term(gpu_load_[g], g);
  }
  return potential;
}

void LayerClimb::try_turnovers(int32_t gpu, double least_gain, Candidate& best) const {
  const auto consider_one = [&](int32_t slot, int32_t expert) {
    const int32_t where = topology_.gpu_of(slot);
    if (holds(where, expert) || !group_may_lie_on(expert, where)) return;
    Candidate candidate{{{slot, expert}, {}}, 1, 0, 0, 0};
    candidate.potential = potential_after_turnover(slot, expert);
    candidate.moves = move_cost(slot, expert);
    consider(candidate, least_gain, best);
  };
  for (int32_t slot = 0; slot < topology_.slots; ++slot) {
    const int32_t where = topology_.gpu_of(slot);
    const int32_t old = row_[slot];
    // The last copy stays; nothing is turned over beside its own second copy.
    if (old == kNoExpert || replicas_[old] < 2) continue;
    if (copies_[static_cast<size_t>(where) * experts_ + old] > 1) continue;
    if (where == gpu) {
      for (int32_t expert = 0; expert < experts_; ++expert) consider_one(slot, expert);
    } else {
      for (int32_t i = gpu * width_; i < (gpu + 1) * width_; ++i) consider_one(slot, row_[i]);
    }
  }
}

}  // namespace eplbd
