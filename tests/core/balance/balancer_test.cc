// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch_policy.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "core/balance/bound.h"
#include "core/balance/random.h"
#include "core/model/imbalance.h"
#include "tests/paths.h"

using namespace eplbd;

namespace {

const Policy kFromScratch[] = {Policy::deepseek, Policy::evolved, Policy::joint};

Topology shape(int32_t layers, int32_t experts, int32_t slots, int32_t groups, int32_t nodes,
               int32_t gpus) {
  Topology topology;
  topology.layers = layers;
  topology.logical_experts = experts;
  topology.slots = slots;
  topology.groups = groups;
  topology.nodes = nodes;
  topology.gpus = gpus;
  return topology;
}

ScratchPlacement place(Policy policy, const Topology& topology, const std::vector<double>& loads,
                       const std::vector<int32_t>& down = {},
                       Hierarchical hierarchical = Hierarchical::automatic) {
  return make_scratch_policy({policy, hierarchical, 7})->place(topology, loads, down);
}

std::optional<std::string> violation(const Topology& topology, const ScratchPlacement& placed,
                                     const std::vector<int32_t>& down = {}) {
  PlacementRules rules;
  rules.groups = placed.hierarchical ? GroupRule::one_node : GroupRule::none;
  rules.allow_duplicates = placed.published.has_value();
  rules.gpus_down = down;
  return find_violation(topology, placed.placement, rules);
}

std::vector<double> skewed_loads(const Topology& topology, uint64_t seed) {
  Random random(seed);
  std::vector<double> loads(static_cast<size_t>(topology.layers) * topology.logical_experts);
  for (double& load : loads) load = std::floor(1e6 * std::pow(random.between(0, 1), 4));
  return loads;
}

std::vector<int32_t> numbers(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<int32_t>(in), {}};
}

}  // namespace

TEST_CASE("deepseek answers the published example as published") {
  const Topology topology = shape(2, 12, 16, 4, 2, 8);
  const std::vector<double> loads = {90, 132, 40,  61, 104, 165, 39,  4,   73,  56, 183, 86,
                                     20, 107, 104, 64, 19,  197, 187, 157, 172, 86, 16,  27};
  const ScratchPlacement result = place(Policy::deepseek, topology, loads);
  CHECK(result.hierarchical);
  CHECK(result.placement.map() == std::vector<int32_t>{5, 6, 5, 7,  8, 4, 3,  4, 10, 9, 10,
                                                       2, 0, 1, 11, 1, 7, 10, 6, 8,  6, 11,
                                                       8, 9, 2, 4,  5, 1, 5,  0, 3,  1});
}

TEST_CASE("deepseek equals the published program element by element") {
  std::ifstream golden(EPLBD_SOURCE_DIR "/tests/data/eplb_golden.txt");
  REQUIRE(golden.good());
  int cases = 0;
  for (std::string line; std::getline(golden, line); ++cases) {
    std::vector<std::vector<int32_t>> parts;
    std::istringstream in(line);
    for (std::string part; std::getline(in, part, '|');) parts.push_back(numbers(part));
    REQUIRE(parts.size() == 4);
    const auto& s = parts[0];
    const Topology topology = shape(s[0], s[1], s[2], s[3], s[4], s[5]);
    const ScratchPlacement result =
        place(Policy::deepseek, topology, {parts[1].begin(), parts[1].end()});
    INFO(line);
    CHECK(result.placement.map() == parts[2]);
    REQUIRE(result.published);
    CHECK(result.published->replica_rank == parts[3]);
  }
  CHECK(cases == 32);
}

TEST_CASE("policies have names") {
  for (const Policy policy :
       {Policy::deepseek, Policy::evolved, Policy::joint, Policy::incremental}) {
    CHECK(from_name<Policy>(to_string(policy)) == policy);
  }
  CHECK_FALSE(from_name<Policy>("greedy"));
}

TEST_CASE("hierarchical where asked for or usual, and where the shape divides") {
  const Topology divides = shape(1, 16, 16, 4, 2, 4);
  const Topology does_not = shape(1, 16, 18, 4, 3, 9);
  CHECK(places_hierarchically({Policy::joint}, divides));
  CHECK_FALSE(places_hierarchically({Policy::incremental}, divides));
  CHECK(places_hierarchically({Policy::incremental, Hierarchical::yes}, divides));
  CHECK_FALSE(places_hierarchically({Policy::joint, Hierarchical::no}, divides));
  CHECK_FALSE(places_hierarchically({Policy::joint, Hierarchical::yes}, does_not));
}

TEST_CASE("every from-scratch placement is valid, whatever the loads") {
  const Topology shapes[] = {shape(2, 12, 16, 4, 2, 8),  shape(1, 16, 16, 1, 1, 4),
                             shape(1, 16, 16, 4, 2, 16), shape(1, 8, 16, 1, 1, 4),
                             shape(1, 8, 8, 1, 1, 1),    shape(1, 4, 12, 1, 1, 1),
                             shape(2, 32, 64, 8, 2, 16), shape(1, 6, 24, 1, 1, 4)};
  for (const Topology& topology : shapes) {
    const auto cells = static_cast<size_t>(topology.layers) * topology.logical_experts;
    std::map<std::string, std::vector<double>> all_loads;
    all_loads["zero"].assign(cells, 0.0);
    all_loads["equal"].assign(cells, 3.0);
    all_loads["one takes all"].assign(cells, 0.0);
    all_loads["one takes all"][1] = 1e6;
    all_loads["2^32"].assign(cells, 4294967295.0);
    all_loads["2^32"][0] = 1;
    all_loads["skewed"] = skewed_loads(topology, 3);
    for (const auto& [name, loads] : all_loads) {
      for (const Policy policy : kFromScratch) {
        INFO(name << ", " << to_string(policy) << ", " << topology.logical_experts << " experts, "
                  << topology.slots << " slots, " << topology.gpus << " GPUs");
        const ScratchPlacement result = place(policy, topology, loads);
        CHECK(result.published.has_value() == (policy != Policy::joint));
        CHECK(violation(topology, result) == std::nullopt);
        CHECK(result.placement == place(policy, topology, loads).placement);
      }
    }
  }
}

TEST_CASE("GPUs that are down stay empty") {
  const Topology topology = shape(2, 16, 32, 4, 2, 8);
  const auto loads = skewed_loads(topology, 5);
  for (const Policy policy : kFromScratch) {
    INFO(to_string(policy));
    const std::vector<int32_t> one = {2};
    const ScratchPlacement without_one = place(policy, topology, loads, one);
    CHECK(without_one.hierarchical);
    CHECK(violation(topology, without_one, one) == std::nullopt);
    // Node 0 keeps one GPU of four: its slots cannot hold half of the experts.
    const std::vector<int32_t> three = {0, 1, 2};
    const ScratchPlacement without_three = place(policy, topology, loads, three);
    CHECK_FALSE(without_three.hierarchical);
    CHECK(violation(topology, without_three, three) == std::nullopt);
    CHECK_THROWS_WITH(place(policy, topology, loads, {0, 1, 2, 3, 4}),
                      "the 3 live GPUs have 12 slots, fewer than the 16 logical experts");
  }
}

TEST_CASE("evolved packs no worse than deepseek, and better on the whole") {
  const Topology topology = shape(12, 64, 72, 8, 2, 8);
  const auto loads = skewed_loads(topology, 11);
  const auto imbalance = [&](Policy policy) {
    return imbalance_of(topology, place(policy, topology, loads).placement, loads);
  };
  const Imbalance deepseek = imbalance(Policy::deepseek);
  const Imbalance evolved = imbalance(Policy::evolved);
  CHECK(evolved.whole_model < deepseek.whole_model - 0.001);
  CHECK(evolved.whole_model < 1.01 * deepseek.whole_model);
}

TEST_CASE("every policy proposes what may follow the placement in force") {
  const Topology topology = shape(3, 12, 16, 4, 2, 4);
  const Placement in_force = Placement::initial(topology);
  const auto loads = skewed_loads(topology, 13);
  const std::vector<int32_t> down = GENERATE(std::vector<int32_t>{}, std::vector<int32_t>{3});
  for (const Policy policy :
       {Policy::deepseek, Policy::evolved, Policy::joint, Policy::incremental}) {
    INFO(to_string(policy) << ", " << down.size() << " GPUs down");
    const Proposal proposal = make_balancer({policy, Hierarchical::automatic, 7})
                                  ->propose({.topology = topology,
                                             .in_force = in_force,
                                             .outlook = {.loads = loads, .steady_loads = {}},
                                             .gpus_down = down,
                                             .budget = {}});
    const PlacementRules rules{proposal.groups, &in_force, down, false};
    CHECK(find_violation(topology, proposal.placement, rules) == std::nullopt);
    // A node of one GPU has 4 slots for its 6 experts: then the placement is global.
    const bool grouped = policy != Policy::incremental && down.empty();
    CHECK(proposal.groups == (grouped ? GroupRule::one_node : GroupRule::none));
    CHECK(imbalance_of(topology, proposal.placement, loads, down).whole_model <
          imbalance_of(topology, in_force, loads, down).whole_model);
  }
}
