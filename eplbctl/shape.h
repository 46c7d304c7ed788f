// The shape that offline commands take from their flags and the file they read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "core/model/topology.h"

namespace eplbd {

struct ShapeOptions {
  int32_t gpus = 0;
  int32_t slots = 0;
  int32_t nodes = 1;
  int32_t groups = 1;
  std::vector<double> gpu_speeds;
};

// Throws UsageError with every problem of the shape.
Topology topology_from(const ShapeOptions& shape, int32_t layers, int32_t experts);

}  // namespace eplbd
