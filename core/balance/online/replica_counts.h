// How many replicas each expert of a layer should have, whatever lies where. A better count seldom
// pays by itself: its gain comes when exchanges between GPUs have evened out what it left.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace eplbd {

// One slot passes from an expert to another.
struct Recount {
  int32_t from = 0;
  int32_t to = 0;
};

// Counts are judged by how full GPUs are under the best packing that they allow. With two slots a
// GPU that packing is known: the heaviest replica lies beside the lightest, and so on inwards. With
// more it is bounded: the k heaviest lie on k GPUs, whose mean load is no less than if they had the
// lightest of all other slots.
class ReplicaCounts {
 public:
  // Loads [experts]; counts [experts], each at least 1, in all slots_per_gpu x speeds.size(); GPU
  // speeds, fastest first.
  void start(std::span<const float> loads, std::span<const int32_t> counts,
             std::span<const float> speeds, int32_t slots_per_gpu);

  float peak() const;  // load / speed of the fullest GPU of that packing

  // The change that lowers the fullest GPUs most, carried out; nothing when none lowers them by
  // `least` (of their soft maximum, as a part of it).
  std::optional<Recount> improve(float least);

 private:
  void harden(int doublings);
  std::optional<Recount> find(float least);
  void find_givers();
  void find_takers();
  void change(int32_t expert, int32_t by);
  float pack();
  float share(int32_t expert) const { return loads_[expert] / static_cast<float>(counts_[expert]); }

  size_t gpus_ = 0;
  size_t slots_per_gpu_ = 0;
  std::vector<float> loads_;     // [experts]
  std::vector<int32_t> counts_;  // [experts]
  std::vector<float> shares_;    // [slots] heaviest first
  std::vector<float> inverse_;   // [gpus] of the speed; beyond two slots a GPU, of the sum so far
  std::vector<float> packed_;    // [gpus, padded] load / speed
  std::vector<int32_t> givers_, takers_;
  int doublings_ = 0;  // what is lowered is the sum of the loads to the power 2^doublings,
  float unit_ = 0;     // times this each
  float powers_ = 0;
};

}  // namespace eplbd
