// The least imbalance to be expected of any placement: gains below it are not to be had.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "core/balance/balancer.h"
#include "core/model/topology.h"

namespace eplbd {

// Of each layer the larger of what chance leaves with so many tokens and of what is proven of any
// placement under these options, weighed by the layers' tokens as Imbalance::whole_model is. 0
// without load. `loads` is [layers, logical_experts]. Throws as imbalance_bound().
double imbalance_floor(const BalancerOptions& options, const Topology& topology,
                       std::span<const double> loads, std::span<const int32_t> gpus_down);

}  // namespace eplbd
