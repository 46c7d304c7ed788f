// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "lib/eplb.h"

namespace {

constexpr int32_t kLayers = 2;
constexpr int32_t kExperts = 16;
constexpr int32_t kSlots = 24;

struct Free {
  void operator()(eplb_rebalancer* r) const { eplb_rebalancer_free(r); }
};
using Handle = std::unique_ptr<eplb_rebalancer, Free>;

eplb_topology shape() {
  eplb_topology topology;
  eplb_topology_init(&topology);
  topology.layers = kLayers;
  topology.logical_experts = kExperts;
  topology.slots = kSlots;
  topology.gpus = 8;
  return topology;
}

Handle make(double now = 0, const eplb_rebalancer_options* options = nullptr) {
  const eplb_topology topology = shape();
  eplb_rebalancer* made = nullptr;
  REQUIRE(eplb_rebalancer_new(&topology, options, now, &made, nullptr) == EPLB_OK);
  return Handle(made);
}

// Expert `hot` gets half of the tokens.
std::vector<uint32_t> counts(int32_t hot) {
  std::vector<uint32_t> all(kLayers * kExperts, 400);
  for (int32_t layer = 0; layer < kLayers; ++layer) all[layer * kExperts + hot] = 6000;
  return all;
}

eplb_status add(const Handle& r, const std::vector<uint32_t>& tokens, double now) {
  return eplb_rebalancer_add(r.get(), tokens.data(), 1, 1, now, nullptr);
}

struct Answer {
  eplb_decision decision;
  std::vector<int32_t> map;
};

Answer decide(const Handle& r, double now) {
  Answer answer;
  answer.map.resize(kLayers * kSlots);
  eplb_decision_init(&answer.decision);
  REQUIRE(eplb_rebalancer_decide(r.get(), now, &answer.decision, answer.map.data(), nullptr) ==
          EPLB_OK);
  return answer;
}

std::vector<int32_t> in_force(const Handle& r, double now) {
  std::vector<int32_t> map(kLayers * kSlots);
  REQUIRE(eplb_rebalancer_state(r.get(), now, map.data(), nullptr, nullptr) == EPLB_OK);
  return map;
}

}  // namespace

TEST_CASE("counts in, an update out, applied, then at rest", "[lib]") {
  const Handle r = make();
  CHECK(std::string(decide(r, 0).decision.verdict) == "no_counts");
  REQUIRE(add(r, counts(3), 1) == EPLB_OK);
  const Answer update = decide(r, 1);
  REQUIRE(update.decision.update == 1);
  CHECK(update.decision.imbalance > 2);
  CHECK(update.decision.imbalance_after < 1.2);
  CHECK(update.decision.moves > 0);
  CHECK(std::string(decide(r, 1.1).decision.verdict) == "applying");
  CHECK(eplb_rebalancer_applied(r.get(), update.decision.id + 1, 1.2, nullptr) ==
        EPLB_INVALID_ARGUMENT);
  REQUIRE(eplb_rebalancer_applied(r.get(), update.decision.id, 1.2, nullptr) == EPLB_OK);
  CHECK(in_force(r, 1.2) == update.map);
  for (int second = 2; second < 20; ++second) {
    REQUIRE(add(r, counts(3), second) == EPLB_OK);
    CHECK(decide(r, second).decision.update == 0);
  }
  CHECK(std::string(decide(r, 20).decision.verdict) == "balanced");
}

TEST_CASE("another placement may be adopted, also instead of an update", "[lib]") {
  const Handle r = make(50);
  REQUIRE(add(r, counts(3), 51) == EPLB_OK);
  REQUIRE(decide(r, 51).decision.update == 1);
  std::vector<int32_t> other(kLayers * kSlots);
  for (size_t i = 0; i < other.size(); ++i)
    other[i] = static_cast<int32_t>((i % kSlots + 5) % kExperts);
  REQUIRE(eplb_rebalancer_adopt(r.get(), other.data(), 52, nullptr) == EPLB_OK);
  CHECK(in_force(r, 52) == other);
  REQUIRE(add(r, counts(3), 60) == EPLB_OK);
  const Answer next = decide(r, 60);
  REQUIRE(next.decision.update == 1);
  REQUIRE(eplb_rebalancer_applied(r.get(), next.decision.id, 61, nullptr) == EPLB_OK);
  CHECK(in_force(r, 61) == next.map);
}

TEST_CASE("the window is what was counted, decayed", "[lib]") {
  eplb_rebalancer_options options;
  eplb_rebalancer_options_init(&options);
  options.half_life_seconds = 10;
  const Handle r = make(0, &options);
  REQUIRE(add(r, counts(3), 1) == EPLB_OK);
  std::vector<double> fresh(kLayers * kExperts), old(kLayers * kExperts);
  REQUIRE(eplb_rebalancer_state(r.get(), 1, nullptr, fresh.data(), nullptr) == EPLB_OK);
  REQUIRE(eplb_rebalancer_state(r.get(), 11, nullptr, old.data(), nullptr) == EPLB_OK);
  CHECK(fresh[3] == Approx(6000).epsilon(0.05));
  CHECK(old[3] == Approx(fresh[3] / 2));
}

TEST_CASE("time that goes back, and values out of range, are refused and harm nothing", "[lib]") {
  const Handle r = make(10);
  REQUIRE(add(r, counts(1), 11) == EPLB_OK);
  eplb_error error;
  CHECK(eplb_rebalancer_add(r.get(), counts(1).data(), 1, 1, 10.5, &error) ==
        EPLB_INVALID_ARGUMENT);
  CHECK(std::string(error.argument) == "now");
  CHECK(eplb_rebalancer_add(r.get(), counts(1).data(), -1, 1, 12, &error) == EPLB_INVALID_ARGUMENT);
  CHECK(std::string(error.argument) == "seconds");
  CHECK(eplb_rebalancer_add(r.get(), counts(1).data(), 1, 1, std::nan(""), &error) ==
        EPLB_INVALID_ARGUMENT);
  CHECK(eplb_rebalancer_add(r.get(), nullptr, 1, 1, 12, &error) == EPLB_INVALID_ARGUMENT);
  CHECK(eplb_rebalancer_adopt(r.get(), std::vector<int32_t>(kLayers * kSlots, 99).data(), 12,
                              &error) == EPLB_INVALID_ARGUMENT);
  CHECK(eplb_rebalancer_add(nullptr, counts(1).data(), 1, 1, 12, &error) == EPLB_INVALID_ARGUMENT);
  REQUIRE(add(r, counts(1), 13) == EPLB_OK);
  CHECK(decide(r, 13).decision.update == 1);

  const eplb_topology topology = shape();
  const auto refused = [&](auto change) {
    eplb_rebalancer_options options;
    eplb_rebalancer_options_init(&options);
    change(options);
    eplb_rebalancer* made = nullptr;
    CHECK(eplb_rebalancer_new(&topology, &options, 0, &made, &error) == EPLB_INVALID_ARGUMENT);
    CHECK(made == nullptr);
    return std::string(error.argument);
  };
  CHECK(refused([](auto& o) { o.imbalance = 1.01; }) == "imbalance");
  CHECK(refused([](auto& o) { o.settle = 0.5; }) == "settle");
  CHECK(refused([](auto& o) { o.half_life_seconds = 1e-9; }) == "half_life_seconds");
  CHECK(refused([](auto& o) { o.cooldown_seconds = -1; }) == "cooldown_seconds");
  CHECK(refused([](auto& o) { o.max_moves = -1; }) == "max_moves");
}
