// Improves one layer of a placement by few slots at a time: exchanges between GPUs, and spare
// replicas turned over to experts of full GPUs. What `incremental` is made of.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/topology.h"

namespace eplbd {

struct SlotChange {
  int32_t slot = 0;
  int32_t expert = 0;
};

// One improvement: one slot turned over, or two exchanged.
struct SearchStep {
  SlotChange changes[2];
  int32_t count = 0;
  int32_t moves = 0;  // more than before, against the layer as it was given
  double gain = 0;    // drop of the layer's smoothed peak, in mean GPU loads
};

class LayerClimb {
 public:
  // `grouped`: no expert group may come to lie on more nodes than before.
  LayerClimb(const Topology& topology, std::span<const int32_t> gpus_down, bool grouped);

  // Takes one layer: slots [slots] and loads [logical_experts], which must stay alive. Empties the
  // slots of GPUs that are down and second copies on a GPU, then fills every empty slot. False:
  // some expert finds no place.
  bool start(std::span<const int32_t> slot_to_expert, std::span<const double> loads);

  double imbalance() const;  // max / mean GPU load
  double mean_load() const { return mean_; }
  std::span<const int32_t> slot_to_expert() const { return row_; }

  // The best change by gain per move, already carried out; nothing when none gains at least
  // `least_gain` per move.
  std::optional<SearchStep> improve(double least_gain);

 private:
  struct Candidate {
    SlotChange changes[2];
    int32_t count = 0;
    int32_t moves = 0;
    double potential = 0;
    double merit = 0;
  };

  bool down(int32_t gpu) const { return speed_[gpu] == 0; }
  bool holds(int32_t gpu, int32_t expert) const {
    return copies_[static_cast<size_t>(gpu) * experts_ + expert] > 0;
  }
  int32_t move_cost(int32_t slot, int32_t expert) const;
  double share(int32_t expert) const { return load_[expert] / replicas_[expert]; }
  double gpu_term(double gpu_load, int32_t gpu) const;
  bool group_may_lie_on(int32_t expert, int32_t gpu) const;
  void vacate(bool keep_duplicates);
  bool fill();
  void put(int32_t slot, int32_t expert);
  void recount();
  void weigh();
  int32_t fullest_gpu() const;
  void try_exchanges(int32_t gpu, double least_gain, Candidate& best) const;
  void try_turnovers(int32_t gpu, double least_gain, Candidate& best) const;
  double potential_after_turnover(int32_t slot, int32_t expert) const;
  void consider(const Candidate& candidate, double least_gain, Candidate& best) const;

  const Topology& topology_;
  const bool grouped_;
  const int32_t experts_;
  const int32_t width_;                // slots of a GPU
  std::vector<double> speed_;          // [gpus] 0: down
  std::vector<int32_t> base_;          // [slots] the layer as given
  std::vector<int32_t> row_;           // [slots] now
  std::vector<double> load_;           // [experts] in mean GPU loads
  std::vector<int32_t> replicas_;      // [experts]
  std::vector<int32_t> copies_;        // [gpus, experts] now
  std::vector<int32_t> base_copies_;   // [gpus, experts] as given
  std::vector<double> gpu_load_;       // [gpus] load / speed, in mean GPU loads
  std::vector<int32_t> on_node_;       // [groups, nodes] slots of a group on a node
  std::vector<int32_t> spread_;        // [groups] nodes it may lie on
  mutable std::vector<double> shift_;  // [gpus] scratch of a turnover
  double mean_ = 0;
  double potential_ = 0;
};

}  // namespace eplbd
