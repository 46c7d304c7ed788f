// SPDX-License-Identifier: Apache-2.0
#include "daemon/descriptors.h"

#include <catch2/catch.hpp>

using namespace eplbd;

TEST_CASE("descriptors are shared out, with some left for ourselves") {
  CHECK_THROWS_WITH(share_descriptors(63), Catch::Contains("needs 64"));
  for (const size_t limit : {64, 100, 1024, 65536}) {
    const DescriptorShares shares = share_descriptors(limit);
    const size_t given = shares.http + shares.control + shares.counts + shares.placements;
    CHECK(given + 40 <= limit);
    for (const size_t share : {shares.http, shares.control, shares.counts, shares.placements}) {
      CHECK(share >= 6);
    }
  }
}
