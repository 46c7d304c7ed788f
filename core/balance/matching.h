// A placement from scratch does not care which GPU is which, the one in force does: GPUs are
// relabelled so that most of what lies where stays there.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/placement.h"
#include "core/model/topology.h"

namespace eplbd {

// `next` with the contents of its GPUs dealt out anew, layer by layer, so that as many experts as
// possible come to lie on a GPU that holds them in `base`. A GPU gets what was meant for one as
// fast. Where groups are kept on nodes it is one of the same node, and whole nodes that are alike
// change places. GPUs that are down stay empty. Slots are permuted inside GPUs as by keep_slots().
// Requires: both valid for the topology, down GPUs empty in `next`.
Placement match_gpus(const Topology& topology, const Placement& base, const Placement& next,
                     std::span<const int32_t> gpus_down, bool groups_on_nodes);

// What a row of an assignment gains by a column, above 0.
struct Gain {
  int32_t row = 0;
  int32_t column = 0;
  int32_t gain = 0;
};

// The assignment problem: [count] which column each row takes, each column once, with the largest
// sum of gains; what is not listed gains nothing. A row keeps its own column where that is as good
// as any and nobody needs it more. Exact: shortest augmenting paths, after Jonker and Volgenant
// (1987), for the rows that do not simply get the column they gain most by.
// Requires: gains by ascending row, of a row and a column once.
std::vector<int32_t> best_assignment(int32_t count, std::span<const Gain> gains);

}  // namespace eplbd
