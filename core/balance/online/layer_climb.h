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

#include "core/balance/online/climb_exchanges.h"
#include "core/balance/online/climb_recounts.h"
#include "core/balance/online/climb_returns.h"
#include "core/balance/online/climb_turnovers.h"
#include "core/balance/online/layer_state.h"
#include "core/model/topology.h"

namespace eplbd {

class LayerClimb {
 public:
  // `grouped`: no expert group may come to lie on more nodes than before.
  LayerClimb(const Topology& topology, std::span<const int32_t> gpus_down, bool grouped);

  // Takes one layer, slots [slots], and the loads to plan for, one at least: experts that are full
  // under several count for more. Empties the slots of GPUs that are down and second copies on a
  // GPU, then fills every empty slot. False: some expert finds no place.
  bool start(std::span<const int32_t> slot_to_expert, std::span<const WeighedLoad> loads);
  // With the load to plan for, and a second one of this weight (0 .. 1; 0: none, `steady` may be
  // empty).
  bool start(std::span<const int32_t> slot_to_expert, std::span<const double> loads,
             std::span<const double> steady, double steady_weight);

  // From the next start on these GPUs [gpus] take in no expert that they do not hold.
  void close(std::span<const char> gpus) { state_.closed.assign(gpus.begin(), gpus.end()); }

  double mean_load() const { return state_.mean; }  // of a GPU under the first load, in tokens
  std::span<const int32_t> slot_to_expert() const { return state_.row; }

  // Expected maximum over GPUs of their loads, in mean loads, when each comes out by chance as much
  // above or below as 1 / sharpness says (see core/model/noise_floor.h).
  double expected_peak(double sharpness) const;

  // The best change by gain per move, already carried out; nothing when none gains at least
  // `least_gain` per move (of the soft maximum, in mean GPU loads).
  std::optional<ClimbStep> improve(double least_gain);

  // The way out where replica counts are what keeps GPUs full: plan_recount() says by how much
  // others could lower the fullest GPU, in mean GPU loads, nothing below `worth`; recount() carries
  // out one change of that plan, nothing when it is done. Only exchanges follow, which make even
  // what the plan counted on, until there is none; then improve() goes on as ever.
  double plan_recount(double least_gain, double worth);
  std::optional<ClimbStep> recount();

  // Carries out a step that was found earlier.
  void repeat(const ClimbStep& step) { state_.put(std::span(step.changes, step.count)); }

  // Undoes what later steps made of no use: a change that saves something, where a move costs
  // `price` of expected_peak(), already carried out; nothing when none does.
  void begin_to_take_back(double sharpness, double price) { returns_.start(sharpness, price); }
  std::optional<ClimbStep> take_back();

 private:
  ClimbStep best_step(double least_gain);
  void find_fullest();
  void find_step(int32_t gpu, Candidate& best);

  // layer_repair.cc
  bool find_place(int32_t expert);
  bool fill(int32_t slot);
  bool repair();

  LayerState state_;
  ClimbExchanges exchanges_;
  TurnoverSearch turnovers_;
  RecountSearch recounts_;
  ReturnSearch returns_;
  std::vector<int32_t> fullest_;  // GPUs
  bool climbing_ = false;
  bool recounted_ = false;
};

}  // namespace eplbd
