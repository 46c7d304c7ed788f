// SPDX-License-Identifier: Apache-2.0
#include "core/balance/imbalance_floor.h"

#include <catch2/catch.hpp>
#include <vector>

#include "core/model/noise_floor.h"
#include "tests/core/shapes.h"

using namespace eplbd;

TEST_CASE("the floor is chance where tokens are few, the bound where they are many") {
  const Topology topology = make_topology(2, 8, 8, 8);  // no spare slot: the hottest expert decides
  const std::vector<double> shares = {8, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1};
  const auto floor_with = [&](double tokens) {
    std::vector<double> loads;
    for (const double share : shares) loads.push_back(share * tokens);
    return imbalance_floor({}, topology, loads, {});
  };
  // Layers of 16 and 8 shares: the first is bound to 4 times its mean, the second is even.
  CHECK(floor_with(1e9) == Approx((16 * 4 + 8 * 1) / 24.0).epsilon(1e-3));
  const NoiseFloor noise(8);
  CHECK(noise.imbalance(8 * 2.0) > 1.5);
  CHECK(floor_with(2) == Approx((16 * 4 + 8 * noise.imbalance(8 * 2.0)) / 24.0));
  CHECK(floor_with(0.1) == 0);  // a window that has faded
  CHECK(floor_with(0) == 0);
}

TEST_CASE("GPUs that are down are no part of the floor") {
  const Topology topology = make_topology(1, 8, 16, 8);
  const std::vector<double> loads(8, 10.0);
  const std::vector<int32_t> down = {2, 5};
  CHECK(imbalance_floor({}, topology, loads, down) == Approx(NoiseFloor(6).imbalance(80)));
  CHECK(imbalance_floor({}, topology, loads, {}) == Approx(NoiseFloor(8).imbalance(80)));
}
