// SPDX-License-Identifier: Apache-2.0
#include "core/decide/candidate.h"

#include <catch2/catch.hpp>

#include "tests/core/shapes.h"

using namespace eplbd;

TEST_CASE("a candidate is measured under the same load, from the placement in force") {
  const Topology topology = make_topology(3, 4, 4, 2);
  const Placement in_force(topology, {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3});
  const std::vector<double> loads = {9, 7, 1, 3, 5, 5, 5, 5, 30, 20, 0, 10};
  const Measured measured = measure(topology, in_force, loads, {});
  CHECK(measured.tokens == 100);
  CHECK(measured.imbalance.peaks == std::vector<double>{16, 10, 50});
  CHECK(measured.imbalance.means == std::vector<double>{10, 10, 30});
  CHECK(measured.imbalance.whole_model == Approx(76.0 / 50));

  const Placement next(topology, {0, 2, 1, 3, 0, 1, 2, 3, 0, 2, 1, 3});
  const MeasuredCandidate candidate = measure(topology, in_force, next, measured, {});
  CHECK(candidate.placement == next);
  CHECK(candidate.imbalance.peaks == std::vector<double>{10, 10, 30});
  CHECK(candidate.imbalance.whole_model == Approx(1));
  CHECK(candidate.moves.total == 4);
  CHECK(candidate.moves.worst_gpu == 2);
  // 6 tokens off the first layer's fullest GPU, 20 off the third's.
  CHECK(layers_by_gain(in_force, measured, candidate) == std::vector<int32_t>{2, 0});
}

TEST_CASE("GPUs that are to hold nothing count neither now nor then") {
  const Topology topology = make_topology(1, 2, 4, 2);
  const std::vector<int32_t> down = {1};
  const Placement in_force(topology, {0, 1, 0, 1});
  const std::vector<double> loads = {6, 2};
  const Measured measured = measure(topology, in_force, loads, down);
  CHECK(measured.imbalance.peaks == std::vector<double>{4});
  const Placement emptied(topology, {0, 1, kNoExpert, kNoExpert});
  const MeasuredCandidate candidate = measure(topology, in_force, emptied, measured, down);
  CHECK(candidate.imbalance.peaks == std::vector<double>{8});
  CHECK(candidate.imbalance.whole_model == 1);
  CHECK(candidate.moves.total == 0);
}
