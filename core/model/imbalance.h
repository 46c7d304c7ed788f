// How unevenly a placement spreads a load: GPU loads, imbalance of a layer and of the whole model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/model/placement.h"
#include "core/model/topology.h"

namespace eplbd {

// Load of each GPU [layers, gpus]: each replica carries load / replica count; with gpu_speeds,
// divided by the GPU's speed. `loads` is [layers, logical_experts].
std::vector<double> gpu_loads(const Topology& topology, const Placement& placement,
                              std::span<const double> loads);

struct Imbalance {
  // Sum over layers of max / sum over layers of mean GPU load; >= 1. 0 when there is no load.
  // vLLM's balancedness (since its #51813) is 1 / this.
  double whole_model = 0;
  std::vector<double> layers;  // [layers] max / mean; 0 for a layer without load
  std::vector<double> peaks;   // [layers] load of the fullest GPU
  std::vector<double> means;   // [layers] of the GPUs' loads
};

// Index of the layer with the highest of these imbalances [layers]; nothing where no layer has
// load.
std::optional<int32_t> worst_layer(std::span<const double> layers);

// `gpu_loads` is [layers, gpus], already divided by speeds; GPUs in `gpus_down` count neither for
// max nor mean.
Imbalance imbalance_of(const Topology& topology, std::span<const double> gpu_loads,
                       std::span<const int32_t> gpus_down = {});

Imbalance imbalance_of(const Topology& topology, const Placement& placement,
                       std::span<const double> loads, std::span<const int32_t> gpus_down = {});

}  // namespace eplbd
