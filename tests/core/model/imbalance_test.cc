// SPDX-License-Identifier: Apache-2.0
#include "core/model/imbalance.h"

#include <catch2/catch.hpp>

#include "core/model/migration.h"
#include "tests/core/shapes.h"

using namespace eplbd;

TEST_CASE("Each replica carries load / replica count") {
  const Topology topology = make_topology(1, 3, 4, 2);
  const Placement placement(topology, {0, 1, 2, 0});
  CHECK(gpu_loads(topology, placement, std::vector<double>{10, 4, 1}) == std::vector<double>{9, 6});
}

TEST_CASE("The whole model's imbalance is the sum of peaks over the sum of means") {
  const Topology topology = make_topology(2, 2, 2, 2);
  const Placement placement = Placement::initial(topology);
  const Imbalance imbalance = imbalance_of(topology, placement, std::vector<double>{3, 1, 10, 10});
  CHECK(imbalance.layers == std::vector<double>{1.5, 1.0});
  CHECK(imbalance.whole_model == Approx(13.0 / 12.0));
}

TEST_CASE("Without load there is no imbalance") {
  const Topology topology = make_topology(2, 2, 2, 2);
  const Placement placement = Placement::initial(topology);
  CHECK(imbalance_of(topology, placement, std::vector<double>(4)).whole_model == 0);
  const Imbalance half = imbalance_of(topology, placement, std::vector<double>{0, 0, 3, 1});
  CHECK(half.layers == std::vector<double>{0, 1.5});
  CHECK(half.whole_model == 1.5);
}

TEST_CASE("Imbalance does not depend on the scale of the load") {
  const Topology topology = make_topology(3, 16, 24, 4);
  const Placement placement = Placement::initial(topology);
  auto loads = skewed_loads(topology, 5);
  const double before = imbalance_of(topology, placement, loads).whole_model;
  for (double& load : loads) load *= 1e6;
  CHECK(imbalance_of(topology, placement, loads).whole_model == Approx(before));
  CHECK(before >= 1);
}

TEST_CASE("A faster GPU carries more for the same imbalance") {
  Topology topology = make_topology(1, 2, 2, 2);
  topology.gpu_speeds = {2, 1};
  const Placement placement = Placement::initial(topology);
  CHECK(imbalance_of(topology, placement, std::vector<double>{20, 10}).whole_model == 1);
  CHECK(imbalance_of(topology, placement, std::vector<double>{10, 10}).whole_model ==
        Approx(10 / 7.5));
}

TEST_CASE("GPUs that are down count neither for the peak nor for the mean") {
  const Topology topology = make_topology(1, 2, 6, 3);
  const Placement placement(topology, {0, 1, -1, -1, 1, 0});
  const std::vector<int32_t> down = {1};
  CHECK(imbalance_of(topology, placement, std::vector<double>{4, 8}, down).whole_model == 1);
}

TEST_CASE("A move is a slot whose new expert its GPU did not hold") {
  const Topology topology = make_topology(1, 4, 8, 4, 2);
  const Placement base(topology, {0, 1, 2, 3, 0, 1, 2, 3});
  // GPU 0 swaps its slots: nothing to fetch. GPU 2 fetches expert 3; a source on its node is best.
  const Placement next(topology, {1, 0, 2, 3, 0, 3, 2, 3});
  const auto moves = moves_between(topology, base, next);
  CHECK(moves == std::vector<Move>{{0, 5, 3, 7}});
  const MoveCount count = count_moves(topology, base, next);
  CHECK(count.total == 1);
  CHECK(count.worst_gpu == 1);
  CHECK(changed_layers(base, next) == std::vector<int32_t>{0});
  CHECK(changed_layers(base, base).empty());
}

TEST_CASE("What no GPU holds is loaded from disk; a lost GPU is no source") {
  const Topology topology = make_topology(1, 2, 4, 2);
  const Placement base(topology, {0, 0, 1, 1});
  const Placement next(topology, {0, 1, -1, -1});
  CHECK(moves_between(topology, base, next) == std::vector<Move>{{0, 1, 1, 2}});
  const std::vector<int32_t> lost = {1};
  CHECK(moves_between(topology, base, next, lost) == std::vector<Move>{{0, 1, 1, -1}});
}

TEST_CASE("Several fetches of one expert share their sources") {
  const Topology topology = make_topology(1, 3, 6, 6);
  const Placement base(topology, {0, 0, 1, 1, 2, 2});
  const Placement next(topology, {0, 0, 0, 0, 1, 2});
  const auto moves = moves_between(topology, base, next);
  REQUIRE(moves.size() == 3);
  CHECK(moves[0].source_slot != moves[1].source_slot);
}

TEST_CASE("Applying the moves to the base gives the next placement") {
  const Topology topology = make_topology(3, 10, 20, 5);
  std::mt19937 random(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<int32_t> map = Placement::initial(topology).map();
    for (int change = 0; change < 8; ++change) {
      map[random() % map.size()] = static_cast<int32_t>(random() % 10);
    }
    const Placement base = Placement::initial(topology);
    const Placement next = keep_slots(topology, base, Placement(topology, map));
    std::vector<std::vector<int32_t>> held;
    const int32_t width = topology.slots_per_gpu();
    for (size_t first = 0; first < map.size(); first += width) {
      held.emplace_back(base.map().begin() + first, base.map().begin() + first + width);
    }
    for (const Move& move : moves_between(topology, base, next)) {
      held[move.layer * topology.gpus + topology.gpu_of(move.slot)].push_back(move.expert);
      CHECK(base.layer(move.layer)[move.source_slot] == move.expert);
    }
    for (size_t i = 0; i < map.size(); ++i) {
      const auto& gpu = held[i / width];
      CHECK(std::find(gpu.begin(), gpu.end(), next.map()[i]) != gpu.end());
    }
  }
}
