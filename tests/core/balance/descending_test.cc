// SPDX-License-Identifier: Apache-2.0
#include "core/balance/descending.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <vector>

#include "core/balance/random.h"

using namespace eplbd;

TEST_CASE("loads are ordered as a stable sort orders them", "[descending]") {
  Random random(3);
  for (const size_t size : {0U, 1U, 2U, 15U, 16U, 17U, 72U, 127U, 255U, 256U, 257U, 512U}) {
    for (const int32_t kinds : {1, 5, 1000000}) {  // of values: equal ones are the hard part
      std::vector<float> values(size);
      for (float& value : values) value = static_cast<float>(random.below(kinds));
      std::vector<int32_t> expected(size);
      std::iota(expected.begin(), expected.end(), 0);
      std::stable_sort(expected.begin(), expected.end(),
                       [&](int32_t a, int32_t b) { return values[a] > values[b]; });
      std::vector<int32_t> order(size);
      order_descending(values, order);
      INFO(size << " values of " << kinds << " kinds");
      CHECK(order == expected);
    }
  }
}
