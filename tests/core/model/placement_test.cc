// SPDX-License-Identifier: Apache-2.0
#include "core/model/placement.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <random>

#include "core/balance/duplicates.h"
#include "core/model/imbalance.h"
#include "tests/core/shapes.h"

using namespace eplbd;
using Catch::Matchers::Contains;

namespace {

std::string violation(const Topology& topology, std::vector<int32_t> map,
                      const PlacementRules& rules = {}) {
  return find_violation(topology, Placement(topology, std::move(map)), rules).value_or("");
}

// Any placement with every expert in it; duplicates on a GPU are likely.
Placement random_placement(const Topology& topology, std::mt19937& random) {
  std::vector<int32_t> map;
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    std::vector<int32_t> row;
    for (int32_t slot = 0; slot < topology.slots; ++slot) {
      row.push_back(slot < topology.logical_experts
                        ? slot
                        : static_cast<int32_t>(random() % topology.logical_experts));
    }
    std::shuffle(row.begin(), row.end(), random);
    map.insert(map.end(), row.begin(), row.end());
  }
  return {topology, std::move(map)};
}

}  // namespace

TEST_CASE("The initial placement is the engines' own") {
  const Topology topology = make_topology(2, 3, 4, 2);
  const Placement initial = Placement::initial(topology);
  CHECK(initial.map() == std::vector<int32_t>{0, 1, 2, 0, 0, 1, 2, 0});
  CHECK_FALSE(find_violation(topology, initial));
}

TEST_CASE("Placement identities order by term, then version") {
  CHECK(PlacementId{1, 9} < PlacementId{2, 1});
  CHECK(PlacementId{2, 1} < PlacementId{2, 2});
  CHECK(PlacementId{} == PlacementId{0, 0});
}

TEST_CASE("Replicas are listed in slot order and padded") {
  const Topology topology = make_topology(1, 3, 6, 3);
  const ReplicaTable table = replica_table(topology, Placement(topology, {2, 0, 0, 1, 0, 2}));
  CHECK(table.width == 3);
  CHECK(table.logical_replica_count == std::vector<int32_t>{3, 1, 2});
  CHECK(table.logical_to_physical == std::vector<int32_t>{1, 2, 4, 3, -1, -1, 0, 5, -1});
}

TEST_CASE("A valid placement breaks no rule, an invalid one names the place") {
  const Topology topology = make_topology(1, 4, 6, 3);
  CHECK(violation(topology, {0, 1, 2, 3, 0, 2}).empty());
  CHECK_THAT(violation(topology, {0, 1, 2, 4, 0, 2}), Contains("slot 3") && Contains("4"));
  CHECK_THAT(violation(topology, {0, 1, 2, -1, 0, 2}), Contains("slot 3"));
  CHECK_THAT(violation(topology, {0, 1, 2, 1, 0, 2}), Contains("expert 3 has no slot"));
  CHECK_THAT(violation(topology, {0, 1, 2, 2, 3, 0}), Contains("GPU 1") && Contains("twice"));
  CHECK(violation(topology, {0, 1, 2, 2, 3, 0}, {.allow_duplicates = true}).empty());
}

TEST_CASE("An expert may lie twice where there are more slots than experts") {
  CHECK(violation(make_topology(1, 2, 6, 2), {0, 1, 0, 1, 0, 1}).empty());
}

TEST_CASE("A GPU that is down holds nothing, the others everything") {
  const Topology topology = make_topology(1, 4, 6, 3);
  const std::vector<int32_t> down = {1};
  PlacementRules rules;
  rules.gpus_down = down;
  CHECK(violation(topology, {0, 1, -1, -1, 2, 3}, rules).empty());
  CHECK_THAT(violation(topology, {0, 1, 2, 3, 2, 3}, rules), Contains("down"));
  CHECK_THAT(violation(topology, {0, 1, -1, -1, 2, 1}, rules), Contains("expert 3"));
}

TEST_CASE("An expert that stays on a GPU keeps its slot") {
  const Topology topology = make_topology(1, 4, 6, 3);
  const Placement base(topology, {0, 1, 2, 3, 0, 2});
  PlacementRules rules;
  rules.base = &base;
  CHECK(violation(topology, {0, 3, 2, 1, 0, 2}, rules).empty());
  CHECK_THAT(violation(topology, {1, 3, 2, 1, 0, 2}, rules), Contains("not in its slot"));
}

TEST_CASE("Groups stay on a node from scratch, and spread no wider in an update") {
  const Topology topology = make_topology(1, 4, 4, 2, 2, 2);
  CHECK(violation(topology, {0, 1, 2, 3}, {.groups = GroupRule::one_node}).empty());
  CHECK_THAT(violation(topology, {0, 2, 1, 3}, {.groups = GroupRule::one_node}),
             Contains("group 0"));

  const Placement spread(topology, {0, 2, 1, 3});
  PlacementRules rules{.groups = GroupRule::no_wider_than_base};
  rules.base = &spread;
  CHECK(violation(topology, {0, 3, 1, 2}, rules).empty());
  const Placement tight(topology, {0, 1, 2, 3});
  rules.base = &tight;
  CHECK_THAT(violation(topology, {0, 2, 1, 3}, rules), Contains("2 nodes"));
}

TEST_CASE("keep_slots permutes inside GPUs only, and keeps what it can") {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const Topology topology = make_topology(2, 9, 16, 4);
    const Placement base = random_placement(topology, random);
    const Placement candidate = random_placement(topology, random);
    const Placement kept = keep_slots(topology, base, candidate);
    PlacementRules rules;
    rules.base = &base;
    rules.allow_duplicates = true;
    CHECK_FALSE(find_violation(topology, kept, rules));
    for (size_t first = 0; first < kept.map().size(); first += 4) {
      std::vector<int32_t> a(kept.map().begin() + first, kept.map().begin() + first + 4);
      std::vector<int32_t> b(candidate.map().begin() + first, candidate.map().begin() + first + 4);
      std::sort(a.begin(), a.end());
      std::sort(b.begin(), b.end());
      CHECK(a == b);
    }
  }
}

TEST_CASE("Duplicates on a GPU are repaired, with hardly any loss of balance") {
  std::mt19937 random(11);
  for (int round = 0; round < 100; ++round) {
    const Topology topology = make_topology(1, 12, 24, 6, 2, 2);
    const auto loads = skewed_loads(topology, 100 + round);
    const Placement repaired =
        repair_duplicates(topology, random_placement(topology, random), loads, false);
    CHECK_FALSE(find_violation(topology, repaired));
  }
  // What is valid already stays as it is.
  const Topology topology = make_topology(1, 4, 6, 3);
  const Placement valid(topology, {0, 1, 2, 3, 0, 2});
  CHECK(repair_duplicates(topology, valid, std::vector<double>{4, 3, 2, 1}, false) == valid);
}

TEST_CASE("A repair under the hierarchical policy stays on its node") {
  const Topology topology = make_topology(1, 8, 12, 4, 2, 2);
  const Placement duplicated(topology, {0, 0, 1, 2, 3, 1, 4, 5, 6, 7, 4, 4});
  const auto loads = skewed_loads(topology, 3);
  const Placement repaired = repair_duplicates(topology, duplicated, loads, true);
  CHECK_FALSE(find_violation(topology, repaired, {.groups = GroupRule::one_node}));
}
