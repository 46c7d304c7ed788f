// Two slots a GPU: for given replica counts the best placement is known, the heaviest replica
// beside the lightest, the next beside the next, and so on inwards (exchanging partners of two such
// pairs never makes the fuller one lighter). So only counts are searched.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/balance/random.h"

namespace eplbd {

class PairCounts {
 public:
  // Moves spare replicas between experts at random, so many times or until no pair carries more
  // than `target` tokens, and keeps what does not make the fullest pair fuller.
  // `counts` [experts], 1 .. gpus each. Requires: they add up to 2 * gpus.
  void improve(std::span<const double> weights, int32_t gpus, double target, int32_t changes,
               Random& random, std::vector<int32_t>& counts);

 private:
  static constexpr int32_t kMostMoves = 3;  // at once
  struct Move {
    int32_t spare = 0;  // which
    int32_t from = 0;   // expert
  };

  int32_t move_some(int32_t best, Random& random);
  bool move(int32_t spare, int32_t to);
  void recount(int32_t expert, int32_t by);
  int32_t fullest_pair() const;
  bool can_go(int32_t expert, int32_t best) const;
  bool relieves(int32_t expert) const;
  void note_fullest(int32_t peak);

  // Weights and shares are in fixed point.
  int32_t gpus_ = 0, heavier_ = 0, lighter_ = 0;
  std::vector<int32_t> weight_, count_;  // [experts]
  std::vector<int32_t> spares_;          // experts: one for each replica beyond the first
  std::vector<int32_t> shares_, kept_;   // [slots] heaviest first
};

}  // namespace eplbd
