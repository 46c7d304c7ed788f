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

  // A move costs `price`, of the layer's expected peak (see LayerClimb::expected_peak).
  void start(double sharpness, double price);
  // The exchange, or the slot turned back, that saves most at the next slot where one saves
  // something: the price of the moves that it takes back, less what it adds to the expected peak.
  // Nothing when there is none. Requires: what it returned last is done.
  std::optional<ClimbStep> next();

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
  int32_t next_slot_ = 0;
  std::vector<float> peaks_;                  // [scenarios] when it started
  std::vector<std::vector<float>> loads_;     // [scenarios][gpus] that the terms are of
  std::vector<double> sums_;                  // [scenarios] of the terms
  std::vector<std::vector<double>> terms_;    // [scenarios][gpus] e^(sharpness x (load - peak))
  std::vector<std::vector<Change>> changes_;  // [scenarios] of GPU loads, by the step at hand
  ClimbStep best_;
  double saved_ = 0;
};

}  // namespace eplbd
