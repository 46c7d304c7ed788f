// One region of a layer (the experts that may lie there, its GPUs) while `joint` searches it: what
// lies where, and how full the GPUs are.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace eplbd {

// Fields are for reading; functions change them. Experts, GPUs and slots are numbered from 0 within
// the region; a GPU holds an expert at most once.
class RegionState {
 public:
  // `speeds` [gpus], all above 0. Every expert has one replica, and none lies anywhere yet.
  // Requires: slots_per_gpu <= weights.size() <= slots_per_gpu * speeds.size().
  void reset(std::span<const double> weights, std::span<const double> speeds,
             int32_t slots_per_gpu);
  // Empties all slots, and says how many replicas each expert is to have.
  void clear(std::span<const int32_t> counts);
  // Takes a placement as it is: experts [slots].
  void load(std::span<const int32_t> placement);

  // Fills an empty slot of the GPU with one of the replicas that its expert is to have, and empties
  // it again.
  void put(int32_t gpu, int32_t slot, int32_t expert) {
    expert_at[slot] = expert;
    tokens[gpu] += share[expert];
    flip(gpu, expert);
  }
  void take(int32_t gpu, int32_t slot);
  // Exchanges what lies in two slots. Requires: neither GPU holds the other's already.
  void exchange(int32_t slot, int32_t other);
  // Turns a replica of an expert that has several into one of `expert`, which that GPU lacks.
  void replace(int32_t slot, int32_t expert);
  // To an earlier copy of this region.
  void go_back(const RegionState& earlier);
  // Adds up tokens anew: many changes leave rounding behind.
  void refresh_tokens();

  int32_t slots() const { return gpus * slots_per_gpu; }
  int32_t gpu_of(int32_t slot) const { return slot / slots_per_gpu; }
  int32_t slot_of(int32_t gpu, int32_t held_expert) const;
  double time(int32_t gpu) const { return tokens[gpu] * inverse_speed[gpu]; }
  int32_t fullest() const;
  double peak() const { return time(fullest()); }
  bool holds(int32_t gpu, int32_t expert) const {
    return (holders_[expert * words_ + (gpu >> 6)] >> (gpu & 63)) & 1;
  }
  template <typename Visit>
  void for_each_holder(int32_t expert, Visit visit) const {
    for (size_t word = 0; word < words_; ++word) {
      for (uint64_t bits = holders_[expert * words_ + word]; bits != 0; bits &= bits - 1) {
        visit(static_cast<int32_t>(word * 64) + std::countr_zero(bits));
      }
    }
  }

  int32_t experts = 0, gpus = 0, slots_per_gpu = 0;
  bool alike = true;                         // all GPUs as fast
  double mean = 0;                           // all tokens / all speed
  std::vector<double> weight;                // [experts] tokens
  std::vector<double> speed, inverse_speed;  // [gpus]
  std::vector<int32_t> count;                // [experts] replicas
  std::vector<double> share;                 // [experts] tokens of one replica
  std::vector<double> tokens;                // [gpus]
  std::vector<int32_t> expert_at;            // [gpus, slots_per_gpu] -1: empty
  std::vector<uint32_t> version;             // [gpus] counts changes of what a GPU carries

 private:
  void flip(int32_t gpu, int32_t expert) {
    holders_[expert * words_ + (gpu >> 6)] ^= uint64_t{1} << (gpu & 63);
  }
  void recount(int32_t expert, int32_t by);

  size_t words_ = 0;
  std::vector<uint64_t> holders_;  // [experts, words] GPUs as bits
};

}  // namespace eplbd
