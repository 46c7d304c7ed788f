// The best exchange of a slot of one GPU with a slot of another.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/balance/online/layer_state.h"

namespace eplbd {

class ClimbExchanges {
 public:
  explicit ClimbExchanges(const LayerState& state);

  // Makes `best` the best exchange of this GPU's slots, if one is worth more.
  void run(int32_t gpu, Candidate& best);

 private:
  using Block = std::span<const int32_t>;  // GPUs, at most kBlock

  void bound_partners(int32_t gpu);
  void count_moves(int32_t gpu);
  int32_t gather_block(int32_t next, float least);
  void mark_slots(int32_t gpu, bool on);
  void load_block(int32_t gpu, Block block);
  void try_block(int32_t gpu, Block block, Candidate& best);
  void ask(int32_t slot, Block block);
  void take_best(int32_t gpu, Block block, const float* worth, const int32_t* which,
                 Candidate& best) const;

  const LayerState& state_;
  std::vector<float> half_;      // [gpus, padded]
  std::vector<float> bounds_;    // [gpus, padded] of what an exchange with it is worth; 0: asked
  std::vector<float> per_move_;  // [gpus, padded] 1 over the moves that it takes at least; 0: none
  std::vector<int32_t> block_;
  std::vector<char> is_held_;    // [slots] its expert lies on the GPU now
  std::vector<char> was_held_;   // [slots] its expert lay on the GPU as given
  std::vector<int32_t> column_;  // [gpus] in the block; -1: not in it

  // The block: [kBlock], [width, kBlock], and with scenarios in front.
  std::array<float, kBlock> before_{}, my_allowed_{}, my_halved_{};
  std::vector<float> allowed_, halved_;
  std::vector<float> gained_, others_, added_;
  std::vector<BoundScenario> bound_scenarios_;
  std::vector<ExchangeScenario> scenarios_;
};

}  // namespace eplbd
