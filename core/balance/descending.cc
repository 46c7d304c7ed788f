// SPDX-License-Identifier: Apache-2.0
#include "core/balance/descending.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace eplbd {

void order_descending(std::span<const float> values, std::span<int32_t> order) {
  // To count for each how many are larger compares all with all, yet without a branch: up to so
  // many that is several times faster than to sort.
  constexpr size_t kCounted = 128;
  const size_t size = values.size();
  if (size > kCounted) {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return values[a] > values[b]; });
    return;
  }
  constexpr size_t kLanes = 16;
  float padded[kCounted + kLanes];
  std::copy(values.begin(), values.end(), padded);
  std::fill_n(padded + size, kLanes, -std::numeric_limits<float>::infinity());
  int32_t equal[kCounted] = {};  // seen so far, by how many are larger
  for (size_t i = 0; i < size; ++i) {
    const float value = padded[i];
    int32_t larger[kLanes] = {};
    for (size_t j = 0; j < size; j += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) larger[lane] += padded[j + lane] > value;
    }
    const int32_t rank = std::accumulate(larger, larger + kLanes, 0);
    order[rank + equal[rank]++] = static_cast<int32_t>(i);
  }
}

}  // namespace eplbd
