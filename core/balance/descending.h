// Sorting a few dozen loads, which every policy does for every layer and node.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace eplbd {

// `order` [values]: the indices of `values`, largest value first, equal ones as they stand.
// Requires: order.size() == values.size(); no NaN.
void order_descending(std::span<const float> values, std::span<int32_t> order);

}  // namespace eplbd
