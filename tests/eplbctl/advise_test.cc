// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/advise.h"

#include <catch2/catch.hpp>

namespace eplbd {
namespace {

size_t knee(const std::vector<std::pair<int32_t, double>>& curve) {
  std::vector<SlotsScore> scores;
  for (const auto& [slots, balancedness] : curve) {
    scores.push_back({slots, {}});
    scores.back().score.balancedness = balancedness;
  }
  return knee_of(scores);
}

TEST_CASE("the knee is where slots begin to buy clearly less") {
  CHECK(knee({{256, .80}, {288, .92}, {320, .95}, {384, .955}, {512, .96}}) == 2);
  CHECK(knee({{32, .70}, {40, .90}, {48, .91}, {64, .92}}) == 1);
  CHECK(knee({{256, .950}, {288, .952}, {512, .955}}) == 0);          // nothing to gain
  CHECK(knee({{256, .6}, {320, .7}, {384, .8}, {448, .9}}) == 3);     // no bend
  CHECK(knee({{256, .8}, {288, .93}, {320, .90}, {512, .95}}) == 1);  // one more that is worse
  CHECK(knee({{256, .8}}) == 0);
}

TEST_CASE("the usual slots hold every expert, whole ones a GPU") {
  CHECK(usual_slots(256, 32) == std::vector<int32_t>{256, 288, 320, 352, 384, 448, 512});
  CHECK(usual_slots(32, 8) == std::vector<int32_t>{32, 40, 48, 56, 64});
  CHECK(usual_slots(256, 144).front() == 288);
  CHECK(usual_slots(256, 144).size() >= 3);
  for (const int32_t slots : usual_slots(60, 7)) {
    CHECK(slots % 7 == 0);
    CHECK(slots >= 60);
  }
}

}  // namespace
}  // namespace eplbd
