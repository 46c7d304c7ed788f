// A lower bound of the peak where GPUs have few slots and replicas have little choice of company.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace eplbd {

// A peak (tokens of the fullest GPU) which no placement of these experts on GPUs that are alike is
// below, without an expert twice on a GPU: `known`, or more where it can prove so. With two or
// three slots a GPU it comes within a hundredth of what can be reached where peak_bound() is 2 to 8
// % off, and takes thousands of times as long: tens of milliseconds a layer. Requires: weights
// finite, >= 0; 2 <= slots_per_gpu <= weights.size() <= slots_per_gpu * gpus; `known` a proven
// bound, above 0.
//
// Why it holds. Of the replicas on a GPU with at most peak T, one with more than T - i a
// (i = 1 .. slots - 1) leaves the others less than i a together, so that at least slots - i of them
// are below a; and there is one such replica at most, as long as T - i a >= T / 2. So over all GPUs
//   (slots - i) * replicas above T - i a  <=  replicas below a,      for every a <= T / (2 i).
// Any weighted sum of these inequalities holds as well. For given weights the least that its left
// side exceeds the right one by, over all replica counts that fill the slots, is a resource
// allocation problem, whose relaxation (the lower convex hull of each expert's cost over its
// counts, then the smallest slopes first) is solved exactly. Where that is above 0, T cannot be
// reached. The weights are found by multiplicative updates (Arora, Hazan, Kale, "The multiplicative
// weights update method", 2012): whatever they are, what they refute is refuted.
double companion_bound(std::span<const double> weights, int32_t gpus, int32_t slots_per_gpu,
                       double known);

}  // namespace eplbd
