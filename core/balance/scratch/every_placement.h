// The best of all placements, where there are so few that each can be tried.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace eplbd {

// Whether there are few: on GPUs that are alike, without an expert twice on one.
bool placements_are_few(int32_t experts, int32_t gpus, int32_t slots_per_gpu);

// Of all placements with a fullest GPU below `peak` (in tokens) the one where it is lowest:
// experts [gpus, slots_per_gpu]; empty: there is none.
// Requires: placements_are_few(), slots for all experts.
std::vector<int32_t> best_placement_below(double peak, std::span<const double> weights,
                                          int32_t gpus, int32_t slots_per_gpu);

}  // namespace eplbd
