// Splitting a set of items in two halves of equal size and nearly equal weight.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/balance/random.h"

namespace eplbd {

// Items of the first half, as indices in `weights`; the rest is the second. Exact up to 14 items;
// above, the best of five greedy starts (all but the first with random noise), each improved by
// exchanging the pair of items that helps most while one does. As the evolved EPLB program of the
// ADRS benchmark does it.
// Requires: an even number of items, at least 2.
std::vector<int32_t> split_in_halves(std::span<const double> weights, Random& random);

}  // namespace eplbd
