// The difference of two placements: which weights must be fetched, and from where.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/placement.h"
#include "core/model/topology.h"

namespace eplbd {

// A slot whose new expert its GPU did not hold before.
struct Move {
  int32_t layer = 0;
  int32_t slot = 0;
  int32_t expert = 0;
  int32_t source_slot = -1;  // held it under the base; -1: nowhere, load from disk
  bool operator==(const Move&) const = default;
};

// In order of layer, then slot. A source on the same node is preferred, then the source slot that
// serves fewest moves so far, so that no GPU sends everything. GPUs in `gpus_lost` are no source.
std::vector<Move> moves_between(const Topology& topology, const Placement& base,
                                const Placement& next, std::span<const int32_t> gpus_lost = {});

// How many, without naming them: of the whole model, and the most any one GPU receives.
struct MoveCount {
  int64_t total = 0;
  int64_t worst_gpu = 0;
};
MoveCount count_moves(const Topology& topology, const Placement& base, const Placement& next);

// Layers whose map differs.
std::vector<int32_t> changed_layers(const Placement& base, const Placement& next);

}  // namespace eplbd
