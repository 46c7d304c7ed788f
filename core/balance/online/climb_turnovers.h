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
  void gather_spares(int32_t gpu);
  float most_left();
  void mask_spares(int32_t expert);
  void find_spare_for(int32_t expert, Candidate& best);
  void try_experts_beside(int32_t slot, Candidate& best);
  void try_beside(int32_t slot, int32_t expert, Candidate& best);
  bool lightens(int32_t slot, int32_t expert) const;
  void take(int32_t slot, int32_t expert, float worth, Candidate& best);
  float spared_together(int32_t rising, int32_t falling) const;
  float rise_elsewhere(int32_t slot) const;
  float added_powers(int32_t slot, int32_t expert) const;

  const LayerState& state_;
  std::vector<TurnoverScenario> scenarios_;
  std::vector<float> mask_;    // [experts, padded]
  std::vector<char> is_held_;  // [gpus] holds the expert in question

  // Slots of this GPU, and spare replicas of other GPUs, padded.
  std::vector<int32_t> wanting_;
  std::vector<int32_t> spares_;
  std::vector<float> own_;  // power of its GPU, less what its going costs
  std::vector<float> own_mask_;
  std::vector<float> speed_;              // inverse, of its GPU
  std::vector<std::vector<float>> rest_;  // [scenarios] load of its GPU without it

  // Of the GPUs that a turnover touches: replicas that fall, that rise.
  std::vector<int32_t> falls_, rises_;  // [gpus]
  std::vector<int32_t> touched_;
};

}  // namespace eplbd
