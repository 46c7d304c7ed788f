// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "core/balance/balancer.h"
#include "core/balance/scratch_policy.h"
#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "core/model/placement.h"
#include "tests/core/shapes.h"

using namespace eplbd;

namespace {

std::vector<double> drawn_loads(const Topology& topology, double sigma, uint32_t seed) {
  std::mt19937 random(seed);
  std::lognormal_distribution<double> popularity(0, sigma);
  std::vector<double> loads(static_cast<size_t>(topology.layers) * topology.logical_experts);
  for (double& load : loads) load = 1000 * popularity(random);
  return loads;
}

Placement place(const BalanceRequest& request,
                Hierarchical hierarchical = Hierarchical::automatic) {
  return make_balancer({Policy::incremental, hierarchical, 0})->propose(request).placement;
}

BalanceRequest request_of(const Topology& topology, const std::vector<double>& loads,
                          const Placement& current) {
  return {.topology = topology,
          .in_force = current,
          .outlook = {.loads = loads, .steady_loads = {}},
          .gpus_down = {},
          .budget = {}};
}

// Every rule that an update must obey.
void check_valid(const BalanceRequest& request, const Placement& next,
                 GroupRule groups = GroupRule::none) {
  const PlacementRules rules{groups, &request.in_force, request.gpus_down, false};
  const auto violation = find_violation(request.topology, next, rules);
  INFO(violation.value_or(""));
  CHECK_FALSE(violation);
}

}  // namespace

TEST_CASE("the placement in force is improved, and stays valid", "[incremental]") {
  struct Shape {
    int32_t layers, experts, slots, gpus;
  };
  const auto shape = GENERATE(Shape{4, 256, 288, 32}, Shape{6, 32, 40, 8}, Shape{3, 128, 144, 16},
                              Shape{2, 8, 16, 8}, Shape{2, 8, 8, 2}, Shape{2, 384, 416, 32});
  const Topology topology = make_topology(shape.layers, shape.experts, shape.slots, shape.gpus);
  const double sigma = GENERATE(0.5, 1.0);
  const auto loads = drawn_loads(topology, sigma, 17);
  const Placement initial = Placement::initial(topology);
  const auto request = request_of(topology, loads, initial);
  const Placement next = place(request);
  check_valid(request, next);
  const Imbalance before = imbalance_of(topology, initial, loads);
  const Imbalance after = imbalance_of(topology, next, loads);
  CHECK(after.whole_model < before.whole_model);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    CHECK(after.layers[layer] <= before.layers[layer] + 1e-6);
  }
  // Whoever starts from there has little left to gain, and the same comes out each time.
  CHECK(place(request) == next);
}

TEST_CASE("real shapes come close to perfect with few moves", "[incremental]") {
  const Topology topology = make_topology(8, 256, 288, 32);
  const auto loads = drawn_loads(topology, 0.7, 23);
  const Placement initial = Placement::initial(topology);
  const Placement next = place(request_of(topology, loads, initial));
  CHECK(imbalance_of(topology, next, loads).whole_model < 1.03);
  // A placement from scratch moves nearly all of the 2,304 slots.
  CHECK(count_moves(topology, initial, next).total < 8 * 90);
}

// No single change helps: a second replica of the heavy expert makes any other GPU as full.
TEST_CASE("an expert that outgrew its GPU is split, and room is made for it", "[incremental]") {
  constexpr int32_t kGpus = 8, kWidth = 4, kLight = 3;
  const Topology topology = make_topology(1, kGpus * kWidth - kLight, kGpus * kWidth, kGpus);
  // GPU 0 holds expert 0 and the light ones, each of which has a second replica on another GPU.
  std::vector<int32_t> map(topology.slots);
  for (int32_t slot = 0, next = 0; slot < topology.slots; ++slot) {
    const int32_t gpu = slot / kWidth;
    const bool second = slot % kWidth == 0 && gpu >= 1 && gpu <= kLight;
    map[slot] = second ? gpu : next++;
  }
  std::vector<double> loads(topology.logical_experts, 250);
  loads[0] = 1400;
  for (int32_t expert = 1; expert <= kLight; ++expert) loads[expert] = 2;
  const Placement current(topology, map);
  const auto request = request_of(topology, loads, current);
  REQUIRE(imbalance_of(topology, current, loads).whole_model > 1.4);
  const Placement next = place(request);
  check_valid(request, next);
  CHECK(imbalance_of(topology, next, loads).whole_model < 1.2);
  CHECK(count_moves(topology, current, next).total <= 16);
}

TEST_CASE("a balanced layer is left alone", "[incremental]") {
  const Topology topology = make_topology(4, 64, 72, 8);
  auto loads = drawn_loads(topology, 0.8, 5);
  const Placement first = place(request_of(topology, loads, Placement::initial(topology)));
  // The load of one layer changes.
  std::mt19937 random(2);
  std::shuffle(loads.begin() + 64, loads.begin() + 128, random);
  auto request = request_of(topology, loads, first);
  request.settle = 1.05;
  const Placement next = place(request);
  CHECK(changed_layers(first, next) == std::vector<int32_t>{1});
  CHECK(imbalance_of(topology, next, loads).layers[1] <= 1.06);
}

TEST_CASE("no load, no change", "[incremental]") {
  const Topology topology = make_topology(3, 16, 24, 4);
  const Placement initial = Placement::initial(topology);
  const std::vector<double> none(3 * 16);
  CHECK(place(request_of(topology, none, initial)) == initial);
}

TEST_CASE("the expected gain is that of the model's peaks", "[incremental]") {
  const Topology topology = make_topology(4, 64, 72, 8);
  const auto loads = drawn_loads(topology, 0.8, 5);
  const Placement initial = Placement::initial(topology);
  const auto proposal = make_balancer({})->propose(request_of(topology, loads, initial));
  const double fall = imbalance_of(topology, initial, loads).whole_model -
                      imbalance_of(topology, proposal.placement, loads).whole_model;
  CHECK(proposal.expected_gain.value_or(-1) == Approx(fall).margin(0.01));
}

TEST_CASE("what chance explains is not chased", "[incremental]") {
  const Topology topology = make_topology(4, 64, 72, 8);
  const auto loads = drawn_loads(topology, 0.8, 5);
  const Placement first = place(request_of(topology, loads, Placement::initial(topology)));
  auto noisy = loads;
  std::mt19937 random(8);
  std::normal_distribution<double> noise(1, 0.1);
  for (double& load : noisy) load *= noise(random);
  auto request = request_of(topology, noisy, first);
  const auto sure = count_moves(topology, first, place(request)).total;
  request.outlook.error = 0.5;
  const auto unsure = count_moves(topology, first, place(request)).total;
  CHECK(unsure < sure / 2);
}

TEST_CASE("where little else than the newest counts is known, less is moved", "[incremental]") {
  const Topology topology = make_topology(6, 64, 72, 8);
  const auto loads = drawn_loads(topology, 0.8, 5);
  const Placement initial = Placement::initial(topology);
  auto request = request_of(topology, loads, initial);
  request.outlook.newest_share = 0.05;
  const Placement known = place(request);
  request.outlook.newest_share = 1;
  const Placement news = place(request);
  CHECK(count_moves(topology, initial, news).total < count_moves(topology, initial, known).total);
}

TEST_CASE("where applying is slow, an update spends more", "[incremental]") {
  const Topology topology = make_topology(6, 64, 72, 8);
  const auto loads = drawn_loads(topology, 0.8, 5);
  const Placement initial = Placement::initial(topology);
  auto request = request_of(topology, loads, initial);
  request.outlook.error = 0.1;
  const Placement fast = place(request);
  request.apply_seconds = 30;
  const Placement slow = place(request);
  CHECK(count_moves(topology, initial, slow).total > count_moves(topology, initial, fast).total);
  CHECK(imbalance_of(topology, slow, loads).whole_model <
        imbalance_of(topology, fast, loads).whole_model);
}

TEST_CASE("budgets hold, and go where they buy most", "[incremental]") {
  const Topology topology = make_topology(12, 64, 72, 8);
  auto loads = drawn_loads(topology, 0.3, 5);
  for (size_t i = 64 * 7; i < 64 * 8; ++i) loads[i] = std::pow(loads[i] / 1000, 4) * 1000;
  const Placement initial = Placement::initial(topology);
  auto request = request_of(topology, loads, initial);
  const double unlimited = imbalance_of(topology, place(request), loads).whole_model;

  SECTION("moves") {
    double last = imbalance_of(topology, initial, loads).whole_model;
    for (const int64_t moves : {1, 2, 5, 20, 80}) {
      request.budget.moves = moves;
      const Placement next = place(request);
      check_valid(request, next);
      CHECK(count_moves(topology, initial, next).total <= moves);
      const double now = imbalance_of(topology, next, loads).whole_model;
      CHECK(now <= last);
      last = now;
    }
    CHECK(last >= unlimited - 0.01);
  }
  SECTION("moves of a GPU") {
    for (const int64_t moves : {1, 3, 10}) {
      request.budget.moves_per_gpu = moves;
      const Placement next = place(request);
      check_valid(request, next);
      CHECK(count_moves(topology, initial, next).worst_gpu <= moves);
      CHECK(imbalance_of(topology, next, loads).whole_model <
            imbalance_of(topology, initial, loads).whole_model);
    }
  }
  SECTION("layers: the worst first") {
    request.budget.layers = 1;
    const auto changed = changed_layers(initial, place(request));
    CHECK(changed == std::vector<int32_t>{7});
  }
}

TEST_CASE("a GPU that goes down is emptied, and nothing is lost", "[incremental]") {
  const Topology topology = make_topology(4, 64, 80, 8);
  const auto loads = drawn_loads(topology, 0.7, 5);
  const Placement initial = Placement::initial(topology);
  const std::vector<int32_t> down{3};
  auto request = request_of(topology, loads, initial);
  request.gpus_down = down;
  const Placement next = place(request);
  check_valid(request, next);
  CHECK(imbalance_of(topology, next, loads, down).whole_model < 1.2);

  // And back: its slots are filled.
  auto back = request_of(topology, loads, next);
  const Placement restored = place(back);
  check_valid(back, restored);
  CHECK(imbalance_of(topology, restored, loads).whole_model < 1.1);
}

TEST_CASE("a GPU goes down even where the budget is spent", "[incremental]") {
  const Topology topology = make_topology(2, 32, 48, 8);
  const auto loads = drawn_loads(topology, 0.7, 5);
  const Placement initial = Placement::initial(topology);
  const std::vector<int32_t> down{0, 7};
  auto request = request_of(topology, loads, initial);
  request.gpus_down = down;
  request.budget.moves = 1;
  check_valid(request, place(request));
}

TEST_CASE("too few GPUs are refused in words", "[incremental]") {
  const Topology topology = make_topology(2, 32, 40, 8);
  const auto loads = drawn_loads(topology, 0.7, 5);
  const Placement initial = Placement::initial(topology);
  const std::vector<int32_t> down{0, 1};
  auto request = request_of(topology, loads, initial);
  request.gpus_down = down;
  CHECK_THROWS_AS(place(request), std::invalid_argument);
}

TEST_CASE("second copies on a GPU are turned over", "[incremental]") {
  const Topology topology = make_topology(1, 8, 12, 4);
  const Placement doubled(topology, {0, 0, 1, 2, 3, 3, 4, 5, 6, 7, 0, 1});
  const auto loads = drawn_loads(topology, 0.5, 5);
  auto request = request_of(topology, loads, doubled);
  request.settle = 100;
  check_valid(request, place(request));
}

TEST_CASE("faster GPUs carry more", "[incremental]") {
  Topology topology = make_topology(4, 64, 80, 8);
  topology.gpu_speeds = {1, 1, 1, 1, 2, 2, 2, 2};
  const auto loads = drawn_loads(topology, 0.5, 5);
  const Placement initial = Placement::initial(topology);
  const auto request = request_of(topology, loads, initial);
  const Placement next = place(request);
  check_valid(request, next);
  const auto before = gpu_loads(topology, initial, loads);
  const auto after = gpu_loads(topology, next, loads);
  for (int32_t layer = 0; layer < 4; ++layer) {
    const auto peak = [&](const std::vector<double>& gpus) {
      return *std::max_element(gpus.begin() + layer * 8, gpus.begin() + layer * 8 + 8);
    };
    double sum = 0;
    for (int32_t e = 0; e < 64; ++e) sum += loads[layer * 64 + e];
    CHECK(peak(after) < peak(before));
    CHECK(peak(after) < 1.1 * sum / 12);  // a perfect spread: total load / total speed
  }
}

TEST_CASE("groups are not spread over more nodes", "[incremental]") {
  const Topology topology = make_topology(3, 64, 80, 8, 4, 8);
  const auto loads = drawn_loads(topology, 0.7, 5);
  const auto scratch = make_scratch_policy({Policy::deepseek, Hierarchical::yes, 0});
  Placement current = scratch->place(topology, loads, {}).placement;
  for (const uint32_t seed : {6U, 7U, 8U}) {
    const auto drifted = drawn_loads(topology, 0.7, seed);
    auto request = request_of(topology, drifted, current);
    const Placement next = place(request, Hierarchical::yes);
    const PlacementRules rules{GroupRule::no_wider_than_base, &current, {}, true};
    CHECK_FALSE(find_violation(topology, next, rules));
    CHECK(imbalance_of(topology, next, drifted).whole_model <
          imbalance_of(topology, current, drifted).whole_model);
    current = next;
  }
}
