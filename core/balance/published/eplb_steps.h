// The steps of the published EPLB algorithm (deepseek-ai/EPLB, eplb.py), which `deepseek` and
// `evolved` share and of which they differ in one, the packing: pack groups to nodes, replicate the
// experts of each node, pack the replicas to the node's GPUs. In float32 as there, so that ties
// and their order come out the same.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "core/balance/scratch_policy.h"

namespace eplbd {

// Where an item went: which pack, and the how manieth of it.
struct Packed {
  int32_t pack = 0;
  int32_t rank = 0;
};

// Packs items of these weights so that every pack gets as many.
// Requires: weights.size() == packed.size(), a multiple of `packs`.
using Packer =
    std::function<void(std::span<const float> weights, int32_t packs, std::span<Packed> packed)>;

// Throws as regions_of().
ScratchPlacement place_in_steps(const BalancerOptions& options, const Topology& topology,
                                std::span<const double> loads, std::span<const int32_t> gpus_down,
                                const Packer& pack);

}  // namespace eplbd
