// The best way to turn a spare replica over to another expert: one on a full GPU, to whatever
// expert helps most; or one elsewhere, to an expert of the full GPU.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "core/balance/online/layer_state.h"

namespace eplbd {

class TurnoverSearch {
 public:
  explicit TurnoverSearch(const LayerState& state);

  // Makes `best` the best turnover that relieves this GPU, if one is worth more.
  void spares_of(int32_t gpu, Candidate& best);
  void experts_of(int32_t gpu, Candidate& best);
  void beside_each_other(int32_t gpu, Candidate& best);

  // Of the sum of powers. Requires: the slot's GPU does not hold the expert.
  double change(int32_t slot, int32_t expert);

 private:
  void mask_experts(int32_t gpu);
  void find_expert_for(int32_t slot, Candidate& best);
  Found most_left();
  void mask_spares(int32_t gpu);
  void mask_gpus_of(int32_t expert);
  void find_spare_for(int32_t expert, int32_t gpu, Candidate& best);
  void try_experts_beside(int32_t slot, Candidate& best);
  void try_beside(int32_t slot, int32_t expert, Candidate& best);
  bool lightens(int32_t slot, int32_t expert) const;
  void take(int32_t slot, int32_t expert, float worth, Candidate& best);
  float spared_together(int32_t rising, int32_t falling) const;
  float added_powers(int32_t slot, int32_t expert) const;

  const LayerState& state_;
  std::vector<TurnoverScenario> scenarios_;
  std::vector<float> mask_;        // [experts, padded]
  std::vector<float> spare_mask_;  // [slots, padded]
  std::vector<int32_t> wanting_;   // slots of the full GPU
  OnceList tried_;                 // experts, for one slot

  // Of the GPUs that a turnover touches: replicas that fall, that rise.
  std::vector<int32_t> falls_, rises_;  // [gpus]
  std::vector<int32_t> touched_;
};

}  // namespace eplbd
