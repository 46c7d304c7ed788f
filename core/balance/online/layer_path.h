// The way that a layer would take, and how far along the ways of all layers an update goes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/balance/balancer.h"
#include "core/balance/online/layer_state.h"
#include "core/model/topology.h"

namespace eplbd {

// The steps that one layer would take, in their order.
struct LayerPath {
  struct Point {
    ClimbStep step;
    double gain = 0;    // so far: drop of the layer's expected peak, in mean GPU loads
    int32_t moves = 0;  // so far
  };
  int32_t layer = 0;
  double weight = 0;  // its mean GPU load against the mean layer's
  size_t taken = 0;
  std::vector<Point> points;

  double gain(size_t count) const { return count == 0 ? 0 : points[count - 1].gain; }
  int32_t moves(size_t count) const { return count == 0 ? 0 : points[count - 1].moves; }
  // Where going on from `taken` pays most per move, no further than `end`: how far, and what.
  std::pair<size_t, double> best_stretch(size_t end) const;
};

// The map of an update while steps are taken into it, and what it may still cost.
class StepTaker {
 public:
  // `map`: [layers, slots] in force.
  StepTaker(const Topology& topology, const MoveBudget& budget, std::vector<int32_t> map);

  // What a layer must become in any case.
  void require(int32_t layer, std::span<const int32_t> slot_to_expert);
  // Stretches of all paths, the best gain per move first, until the budget is spent.
  void take(std::vector<LayerPath>& paths);

  // GPUs [gpus] that may take in no more.
  std::vector<char> full_gpus() const;
  std::span<const int32_t> layer(int32_t layer) const;
  std::vector<int32_t>& map() { return map_; }

 private:
  std::span<int32_t> row(int32_t layer);
  size_t affordable(const LayerPath& path) const;
  void take_step(const LayerPath& path);

  const Topology& topology_;
  const MoveBudget budget_;
  std::vector<int32_t> map_;
  std::vector<int64_t> incoming_;  // [gpus]
  int64_t moves_ = 0;
};

}  // namespace eplbd
