// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/shape.h"

#include <string>

#include "eplbctl/errors.h"

namespace eplbd {

Topology topology_from(const ShapeOptions& shape, int32_t layers, int32_t experts) {
  Topology topology;
  topology.layers = layers;
  topology.logical_experts = experts;
  topology.slots = shape.slots;
  topology.gpus = shape.gpus;
  topology.nodes = shape.nodes;
  topology.groups = shape.groups;
  topology.gpu_speeds = shape.gpu_speeds;
  std::string problems;
  for (const std::string& problem : topology.problems()) {
    problems += (problems.empty() ? "" : "\n") + problem;
  }
  if (!problems.empty()) throw UsageError(problems);
  return topology;
}

}  // namespace eplbd
