// Improves one layer of a placement by few slots at a time: exchanges between GPUs, and spare
// replicas turned over to experts of full GPUs. What `incremental` is made of.
//
// It goes down the sum of high powers of the GPUs' loads, the best step per move first: a soft
// maximum, in which lowering any of several full GPUs counts. What a step is worth in the end,
// the caller judges by expected_peak().
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
struct ClimbStep {
  SlotChange changes[2];
  int32_t count = 0;
  int32_t moves = 0;  // more than before, against the layer as it was given
};

class LayerClimb {
 public:
  // `grouped`: no expert group may come to lie on more nodes than before.
  LayerClimb(const Topology& topology, std::span<const int32_t> gpus_down, bool grouped);

  // Takes one layer: slots [slots], the load [logical_experts] to plan for, and a second one of
  // this weight (0 .. 1; 0: none, `steady` may be empty): experts that are full under both count
  // for more. Empties the slots of GPUs that are down and second copies on a GPU, then fills every
  // empty slot. False: some expert finds no place.
  bool start(std::span<const int32_t> slot_to_expert, std::span<const double> loads,
             std::span<const double> steady, double steady_weight);

  double mean_load() const { return mean_; }  // of a GPU, in tokens
  std::span<const int32_t> slot_to_expert() const { return row_; }

  // Expected maximum over GPUs of their loads, in mean loads, when each comes out by chance as much
  // above or below as 1 / sharpness says (see core/noise_floor.h).
  double expected_peak(double sharpness) const;

  // The best change by gain per move, already carried out; nothing when none gains at least
  // `least_gain` per move (of the soft maximum, in mean GPU loads).
  std::optional<ClimbStep> improve(double least_gain);

 private:
  // The layer under one load. Loads are in mean GPU loads, divided by speed where of a GPU.
  struct Lane {
    float weight = 0;
    std::vector<float> expert_load;  // [experts]
    std::vector<float> share;        // [slots] load of the replica there
    std::vector<float> gpu_load;     // [gpus]
    std::vector<float> gpu_term;     // [gpus] its high power
    std::vector<float> slot_load;    // [slots] the same, of the slot's GPU
    std::vector<float> slot_term;    // [slots]
  };

  struct Candidate {
    ClimbStep step;
    double merit = 0;  // gain per move
  };

  bool down(int32_t gpu) const { return speed_[gpu] == 0; }
  bool holds(int32_t gpu, int32_t expert) const { return copies_[cell(gpu, expert)] > 0; }
  size_t cell(int32_t gpu, int32_t expert) const {
    return static_cast<size_t>(gpu) * experts_ + expert;
  }
  float power(float x) const;
  int32_t move_cost(int32_t slot, int32_t expert) const;
  bool group_may_lie_on(int32_t expert, int32_t gpu) const;

  // layer_repair.cc
  bool find_place(int32_t expert);
  bool fill(int32_t slot);
  bool repair();

  void take_loads(Lane& lane, float weight, std::span<const double> loads);
  void put(int32_t slot, int32_t expert);
  void weigh();
  void weigh(Lane& lane);
  int32_t fullest_gpu() const;
  double soft_peak() const;
  void consider(const ClimbStep& step, double change, Candidate& best) const;
  void try_exchanges(int32_t gpu, Candidate& best);
  void try_exchanges_of(int32_t slot, Candidate& best);
  void try_turnovers(int32_t gpu, Candidate& best);
  void try_turnover(int32_t slot, int32_t expert, double relief, Candidate& best);
  double relief(int32_t expert) const;
  double added_change(int32_t slot, int32_t expert) const;
  bool spare(int32_t slot) const;
  double turnover_change(int32_t slot, int32_t expert) const;

  const Topology& topology_;
  const bool grouped_;
  const int32_t experts_;
  const int32_t width_;        // slots of a GPU
  std::vector<double> speed_;  // [gpus] 0: down
  double live_gpus_ = 0;
  std::vector<float> inverse_speed_;           // [slots] of the slot's GPU
  std::vector<int32_t> row_;                   // [slots] now
  std::vector<int32_t> replicas_;              // [experts]
  std::vector<uint16_t> copies_;               // [gpus, experts] now
  std::vector<uint16_t> base_copies_;          // [gpus, experts] as given
  std::vector<std::vector<int32_t>> holders_;  // [experts] GPUs that hold it
  std::vector<int32_t> on_node_;               // [groups, nodes] slots of a group on a node
  std::vector<int32_t> spread_;                // [groups] nodes it lay on
  std::vector<Lane> lanes_;
  int doublings_ = 0;  // the power is 8 << doublings
  double slope_ = 0;   // of the soft maximum against the sum of powers
  double mean_ = 0;
  std::vector<float> changes_;  // [slots] scratch
};

}  // namespace eplbd
