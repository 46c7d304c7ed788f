// Experts that came for little and can go back where they lay: what later steps made of no use.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/balance/online/layer_state.h"

namespace eplbd {

class ReturnSearch {
 public:
  explicit ReturnSearch(const LayerState& state);

  // The exchange, or the slot turned back, that saves most: `price` for each move that it takes
  // back, less what it adds to the layer's expected peak (see LayerClimb::expected_peak). Nothing
  // when none saves anything.
  std::optional<ClimbStep> best(double sharpness, double price);

 private:
  struct Change {
    int32_t gpu = 0;
    float load = 0;
  };
  void weigh();
  void try_exchanges(int32_t slot);
  void try_exchange(int32_t slot, int32_t other);
  void try_turning_back(int32_t slot);
  void consider(const ClimbStep& step);
  void change(size_t scenario, int32_t gpu, float by);
  double added_peak();

  const LayerState& state_;
  double sharpness_ = 0;
  double price_ = 0;
  std::vector<float> peaks_;                  // [scenarios]
  std::vector<double> sums_;                  // [scenarios] of the terms
  std::vector<std::vector<double>> terms_;    // [scenarios][gpus] e^(sharpness x (load - peak))
  std::vector<std::vector<Change>> changes_;  // [scenarios] of GPU loads, by the step at hand
  ClimbStep best_;
  double saved_ = 0;
};

}  // namespace eplbd
