// SPDX-License-Identifier: Apache-2.0
#include "core/balance/group_packing.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>
#include <vector>

#include "core/balance/random.h"

using namespace eplbd;

TEST_CASE("every way to deal groups to like nodes is there, and once", "[group_packing]") {
  const GroupPackings packings(8, 4);
  CHECK(packings.size() == 105);
  std::set<std::set<std::set<int32_t>>> known;
  for (int32_t index = 0; index < packings.size(); ++index) {
    std::vector<std::set<int32_t>> nodes(4);
    for (int32_t group = 0; group < 8; ++group) nodes[packings.packing(index)[group]].insert(group);
    for (const auto& node : nodes) CHECK(node.size() == 2);
    known.insert({nodes.begin(), nodes.end()});
  }
  CHECK(known.size() == 105);
  CHECK(GroupPackings(1, 1).size() == 1);
  CHECK(GroupPackings(64, 8).size() == 0);  // too many
}

TEST_CASE("the fullest node of every packing", "[group_packing]") {
  GroupPackings packings(6, 3);
  Random random(4);
  std::vector<double> tokens;
  for (int i = 0; i < 6; ++i) tokens.push_back(random.between(0, 1));
  std::vector<double> fullest;
  packings.fullest_nodes(tokens, fullest);
  REQUIRE(static_cast<int32_t>(fullest.size()) == packings.size());
  for (int32_t index = 0; index < packings.size(); ++index) {
    std::vector<double> sums(3);
    for (int32_t group = 0; group < 6; ++group)
      sums[packings.packing(index)[group]] += tokens[group];
    CHECK(fullest[index] == Approx(*std::max_element(sums.begin(), sums.end())));
  }
}
