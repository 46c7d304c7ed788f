// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/model/topology.h"

namespace eplbd {

inline Topology topology_of(int32_t layers, int32_t experts, int32_t slots, int32_t gpus) {
  Topology topology;
  topology.layers = layers;
  topology.logical_experts = experts;
  topology.slots = slots;
  topology.gpus = gpus;
  return topology;
}

}  // namespace eplbd
