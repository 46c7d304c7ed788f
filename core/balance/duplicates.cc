// SPDX-License-Identifier: Apache-2.0
#include "core/balance/duplicates.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

namespace eplbd {
namespace {

class LayerRepair {
 public:
  LayerRepair(const Topology& topology, std::span<int32_t> row, std::span<const double> loads,
              bool hierarchical)
      : topology_(topology),
        row_(row),
        loads_(loads),
        hierarchical_(hierarchical),
        width_(topology.slots_per_gpu()),
        replicas_(topology.logical_experts) {
    count_replicas(row_, replicas_);
  }

  void run() {
    for (int32_t slot = 0; slot < topology_.slots; ++slot) {
      if (!is_second_copy(slot)) continue;
      const int32_t partner = best_partner(slot);
      if (partner >= 0) {
        std::swap(row_[slot], row_[partner]);
      } else {
        turn_over(slot);
      }
    }
  }

 private:
  std::span<const int32_t> gpu_row(int32_t gpu) const {
    return row_.subspan(static_cast<size_t>(gpu) * width_, width_);
  }
  bool holds(int32_t gpu, int32_t expert) const {
    const auto held = gpu_row(gpu);
    return std::find(held.begin(), held.end(), expert) != held.end();
  }
  bool is_second_copy(int32_t slot) const {
    if (row_[slot] == kNoExpert) return false;
    const auto begin = row_.begin() + static_cast<ptrdiff_t>(topology_.gpu_of(slot)) * width_;
    return std::find(begin, row_.begin() + slot, row_[slot]) != row_.begin() + slot;
  }
  double share(int32_t expert) const { return loads_[expert] / std::max(replicas_[expert], 1); }
  double gpu_load(int32_t gpu) const {
    double load = 0;
    for (const int32_t expert : gpu_row(gpu)) {
      if (expert != kNoExpert) load += share(expert);
    }
    return load;
  }
  bool reachable(int32_t from_gpu, int32_t to_gpu) const {
    return to_gpu != from_gpu &&
           (!hierarchical_ || topology_.node_of(from_gpu) == topology_.node_of(to_gpu));
  }

  // The slot of another GPU to exchange with; -1 when every exchange makes a new duplicate.
  int32_t best_partner(int32_t slot) const {
    const int32_t gpu = topology_.gpu_of(slot);
    const double mine = gpu_load(gpu);
    int32_t best = -1;
    double best_peak = std::numeric_limits<double>::infinity();
    for (int32_t other = 0; other < topology_.gpus; ++other) {
      if (!reachable(gpu, other) || holds(other, row_[slot])) continue;
      const double theirs = gpu_load(other);
      for (int32_t partner = other * width_; partner < (other + 1) * width_; ++partner) {
        const int32_t expert = row_[partner];
        if (expert == kNoExpert || holds(gpu, expert)) continue;
        const double shift = share(expert) - share(row_[slot]);
        const double peak = std::max((mine + shift) / topology_.gpu_speed(gpu),
                                     (theirs - shift) / topology_.gpu_speed(other));
        if (peak < best_peak) {
          best_peak = peak;
          best = partner;
        }
      }
    }
    return best;
  }

  bool may_lie_on(int32_t gpu, int32_t expert) const {
    if (!hierarchical_) return true;
    for (int32_t slot = 0; slot < topology_.slots; ++slot) {
      if (row_[slot] == expert) {
        return topology_.node_of(topology_.gpu_of(slot)) == topology_.node_of(gpu);
      }
    }
    return false;
  }

  void turn_over(int32_t slot) {
    const int32_t gpu = topology_.gpu_of(slot);
    int32_t heaviest = -1;
    for (int32_t expert = 0; expert < topology_.logical_experts; ++expert) {
      if (holds(gpu, expert) || !may_lie_on(gpu, expert)) continue;
      if (heaviest < 0 || share(expert) > share(heaviest)) heaviest = expert;
    }
    if (heaviest < 0) return;  // the GPU has more slots than there are experts for it
    --replicas_[row_[slot]];
    ++replicas_[heaviest];
    row_[slot] = heaviest;
  }

  const Topology& topology_;
  const std::span<int32_t> row_;
  const std::span<const double> loads_;
  const bool hierarchical_;
  const int32_t width_;
  std::vector<int32_t> replicas_;
};

}  // namespace

Placement repair_duplicates(const Topology& topology, const Placement& placement,
                            std::span<const double> loads, bool hierarchical) {
  std::vector<int32_t> map = placement.map();
  const auto slots = static_cast<size_t>(topology.slots);
  const auto experts = static_cast<size_t>(topology.logical_experts);
  for (size_t layer = 0; layer < static_cast<size_t>(topology.layers); ++layer) {
    LayerRepair(topology, {map.data() + layer * slots, slots},
                loads.subspan(layer * experts, experts), hierarchical)
        .run();
  }
  return {topology, std::move(map)};
}

}  // namespace eplbd
