// SPDX-License-Identifier: Apache-2.0
#include "core/model/topology.h"

#include <catch2/catch.hpp>
#include <limits>

#include "tests/core/shapes.h"

using namespace eplbd;
using Catch::Matchers::Contains;

TEST_CASE("A possible shape has no problems") {
  CHECK(make_topology(58, 256, 288, 32, 4, 8).problems().empty());
  CHECK(make_topology(1, 1, 1, 1).problems().empty());
  CHECK(make_topology(58, 256, 288, 144, 18, 8).problems().empty());
}

TEST_CASE("Indices follow from the shape") {
  Topology topology = make_topology(2, 12, 16, 8, 2, 4);
  CHECK(topology.slots_per_gpu() == 2);
  CHECK(topology.gpu_of(5) == 2);
  CHECK(topology.node_of(3) == 0);
  CHECK(topology.node_of(4) == 1);
  CHECK(topology.layer_id(1) == 1);
  topology.layer_ids = {3, 7};
  CHECK(topology.layer_id(1) == 7);
  CHECK(topology.gpu_speed(0) == 1.0);
}

TEST_CASE("Only shapes whose groups divide are hierarchical") {
  CHECK(make_topology(1, 256, 288, 32, 4, 8).divides_hierarchically());
  CHECK_FALSE(make_topology(1, 256, 288, 144, 18, 8).divides_hierarchically());
  CHECK_FALSE(make_topology(1, 10, 16, 8, 2, 4).divides_hierarchically());
}

TEST_CASE("Each impossible shape says what clashes") {
  const auto only_problem = [](const Topology& topology) {
    const auto problems = topology.problems();
    REQUIRE(problems.size() == 1);
    return problems.front();
  };
  CHECK_THAT(only_problem(make_topology(0, 8, 8, 4)), Contains("layers 0"));
  CHECK_THAT(only_problem(make_topology(1, 8, 10, 4)), Contains("slots 10") && Contains("gpus 4"));
  CHECK_THAT(only_problem(make_topology(1, 16, 8, 4)), Contains("logical_experts 16"));
  CHECK_THAT(only_problem(make_topology(1, 8, 12, 6, 4)), Contains("nodes 4"));
  CHECK_THAT(only_problem(make_topology(1, 8, 8, 4, 1, 9)), Contains("groups 9"));
  CHECK_THAT(only_problem(make_topology(100'000, 256, 256, 4)), Contains("4 MiB"));

  Topology topology = make_topology(2, 8, 8, 4);
  topology.layer_ids = {3};
  CHECK_THAT(only_problem(topology), Contains("layer_ids has 1"));
  topology.layer_ids = {3, 3};
  CHECK_THAT(only_problem(topology), Contains("repeats"));
  topology.layer_ids = {};
  topology.gpu_speeds = {1, 1, 0, 1};
  CHECK_THAT(only_problem(topology), Contains("gpu_speeds"));
  topology.gpu_speeds = {1, 1, std::numeric_limits<double>::quiet_NaN(), 1};
  CHECK_THAT(only_problem(topology), Contains("gpu_speeds"));
}

TEST_CASE("All problems are told at once") {
  CHECK(make_topology(0, 0, 8, 4).problems().size() == 2);
  CHECK(make_topology(1, 16, 10, 4).problems().size() == 2);
}
