// `incremental` where GPUs have few slots and experts are heavy: no single change helps there, and
// what may be reached is known from `joint`. And its promises on instances drawn at random.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
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

constexpr double kCheap = 0.001;  // trigger.min_gain

Placement improved(const Topology& topology, const std::vector<double>& loads,
                   const Placement& in_force, int64_t steps = 0) {
  return make_balancer({Policy::incremental, Hierarchical::no, 0})
      ->propose({.topology = topology,
                 .in_force = in_force,
                 .outlook = {.loads = loads, .steady_loads = {}},
                 .gpus_down = {},
                 .budget = {},
                 .steps = steps,
                 .min_gain = kCheap})
      .placement;
}

std::vector<double> joint_layers(const Topology& topology, const std::vector<double>& loads) {
  const auto joint = make_scratch_policy({Policy::joint, Hierarchical::no, 0});
  return imbalance_of(topology, joint->place(topology, loads, {}).placement, loads).layers;
}

double worst_against(const std::vector<double>& ours, const std::vector<double>& reachable) {
  double worst = 0;
  for (size_t i = 0; i < ours.size(); ++i) worst = std::max(worst, ours[i] / reachable[i]);
  return worst;
}

// GPU g's slots hold experts g, g + gpus, g + 2 gpus ...: dealt out in turn.
Placement dealt_out(const Topology& topology) {
  std::vector<int32_t> map;
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    for (int32_t slot = 0; slot < topology.slots; ++slot) {
      const int32_t width = topology.slots_per_gpu();
      map.push_back((slot / width + slot % width * topology.gpus) % topology.logical_experts);
    }
  }
  return {topology, map};
}

}  // namespace

TEST_CASE("an expert as heavy as all GPUs gets a slot on each", "[incremental]") {
  const Topology topology = make_topology(1, 8, 12, 4);
  const std::vector<double> loads{4000, 100, 100, 100, 100, 100, 100, 100};
  const Placement initial = Placement::initial(topology);
  const Placement next = improved(topology, loads, initial);
  CHECK(imbalance_of(topology, next, loads).whole_model < 1.03);
  CHECK(count_moves(topology, initial, next).total <= 8);
}

TEST_CASE("no layer ends far from what is reachable, wherever it started", "[incremental]") {
  struct Shape {
    int32_t experts, slots, gpus;
  };
  const auto [experts, slots, gpus] =
      GENERATE(Shape{256, 288, 72}, Shape{256, 288, 96}, Shape{256, 288, 144});
  const double sigma = GENERATE(0.5, 1.0);
  const Topology topology = make_topology(3, experts, slots, gpus);
  const auto loads = skewed_loads(topology, 31, sigma);
  const auto reachable = joint_layers(topology, loads);
  const Placement initial = Placement::initial(topology);
  const Placement from_initial = improved(topology, loads, initial);
  CAPTURE(gpus, sigma);
  const auto imbalance = [&](const Placement& p) { return imbalance_of(topology, p, loads); };
  CHECK(worst_against(imbalance(from_initial).layers, reachable) < 1.03);
  CHECK(count_moves(topology, initial, from_initial).total < topology.layers * slots * 2 / 3);

  const Placement from_dealt = improved(topology, loads, dealt_out(topology));
  CHECK(imbalance(from_dealt).whole_model ==
        Approx(imbalance(from_initial).whole_model).margin(0.01));

  // From its own answer there is next to nothing left to do, and soon nothing at all.
  Placement last = from_initial;
  int64_t more = 0;
  for (int round = 0; round < 4; ++round) {
    const Placement next = improved(topology, loads, last);
    more = count_moves(topology, last, next).total;
    CHECK(imbalance(next).whole_model <= imbalance(last).whole_model + 1e-6);
    CHECK(more <= topology.layers * slots / 20);
    last = next;
  }
  CHECK(more == 0);
}

TEST_CASE("a search that is cut short goes on where it ended", "[incremental]") {
  const Topology topology = make_topology(6, 256, 288, 96);
  const auto loads = skewed_loads(topology, 33);
  Placement placement = Placement::initial(topology);
  const double at_once =
      imbalance_of(topology, improved(topology, loads, placement), loads).whole_model;
  double last = imbalance_of(topology, placement, loads).whole_model;
  for (int round = 0; round < 8; ++round) {
    placement = improved(topology, loads, placement, 200);
    const double now = imbalance_of(topology, placement, loads).whole_model;
    CHECK(now <= last + 1e-6);
    last = now;
  }
  CHECK(last < at_once + 0.01);
}

// Most of what one GPU holds another holds too: what is asked of each pair of replicas is asked
// thousands of times.
TEST_CASE("few experts with many replicas are balanced, in few moves", "[incremental]") {
  const Topology topology = make_topology(1, 18, 960, 96);
  std::mt19937 random(7);
  std::vector<double> loads(18);
  for (double& load : loads) load = static_cast<double>(1 + random() % 1000);
  const Placement initial = Placement::initial(topology);
  const Placement next = improved(topology, loads, initial);
  CHECK_FALSE(find_violation(topology, next, {GroupRule::none, &initial, {}, false}));
  CHECK(imbalance_of(topology, next, loads).whole_model < 1.02);
  CHECK(count_moves(topology, initial, next).total < 200);
}

// So full a GPU that high powers of its load leave no room for what is forbidden to cost more.
TEST_CASE("groups stay on their nodes however heavy one expert is", "[incremental]") {
  const Topology topology = make_topology(1, 336, 432, 144, 8, 16);
  std::vector<double> loads(336, 1.0);
  const int32_t heavy = GENERATE(0, 100, 335);
  loads[heavy] = 1e6;
  loads[(heavy + 1) % 336] = 1e5;
  const Placement initial = Placement::initial(topology);
  const Placement next = make_balancer({Policy::incremental, Hierarchical::yes, 0})
                             ->propose({.topology = topology,
                                        .in_force = initial,
                                        .outlook = {.loads = loads, .steady_loads = {}},
                                        .gpus_down = {},
                                        .budget = {}})
                             .placement;
  CHECK_FALSE(find_violation(topology, next, {GroupRule::no_wider_than_base, &initial, {}, false}));
  CHECK(imbalance_of(topology, next, loads).whole_model <
        imbalance_of(topology, initial, loads).whole_model / 2);
}

TEST_CASE("on any instance budgets, groups and GPUs that are down are respected", "[incremental]") {
  std::mt19937 random(41);
  const auto one_of = [&](std::initializer_list<int32_t> values) {
    return values.begin()[random() % values.size()];
  };
  for (int32_t tries = 0; tries < 60; ++tries) {
    const int32_t nodes = one_of({1, 2, 4});
    const int32_t gpus = nodes * one_of({2, 3, 5});
    const int32_t width = one_of({2, 3, 4, 6});
    // Room for a GPU that is down.
    const int32_t groups = nodes * 2;
    const int32_t experts = std::max(groups, (gpus - nodes) * width / groups * groups);
    if (experts / nodes < width) continue;  // an expert would have to lie on a GPU twice
    Topology topology = make_topology(2, experts, gpus * width, gpus, nodes, groups);
    REQUIRE(topology.problems().empty());
    if (one_of({0, 1}) == 1) {
      for (int32_t gpu = 0; gpu < gpus; ++gpu) topology.gpu_speeds.push_back(one_of({1, 2}));
    }
    const bool grouped = one_of({0, 1}) == 1;
    const auto policy = grouped ? Hierarchical::yes : Hierarchical::no;
    const std::vector<int32_t> down =
        one_of({0, 1}) == 1 ? std::vector<int32_t>{static_cast<int32_t>(random() % gpus)}
                            : std::vector<int32_t>{};
    const auto before = skewed_loads(topology, static_cast<uint32_t>(random()), 1.5);
    const Placement base =
        make_scratch_policy({Policy::joint, policy, 0})->place(topology, before, down).placement;
    const auto loads = skewed_loads(topology, static_cast<uint32_t>(random()), 1.5);
    const MoveBudget budget{one_of({0, 1, 5, 20}), one_of({0, 1, 3}), one_of({0, 1})};
    const Proposal proposal = make_balancer({Policy::incremental, policy, 0})
                                  ->propose({.topology = topology,
                                             .in_force = base,
                                             .outlook = {.loads = loads, .steady_loads = {}},
                                             .gpus_down = down,
                                             .budget = budget,
                                             .min_gain = kCheap});
    const auto violation = find_violation(
        topology, proposal.placement,
        {grouped ? GroupRule::no_wider_than_base : GroupRule::none, &base, down, false});
    INFO(violation.value_or(""));
    CHECK_FALSE(violation);
    const MoveCount moves = count_moves(topology, base, proposal.placement);
    CHECK((budget.moves == 0 || moves.total <= budget.moves));
    CHECK((budget.moves_per_gpu == 0 || moves.worst_gpu <= budget.moves_per_gpu));
    CHECK((budget.layers == 0 ||
           static_cast<int64_t>(changed_layers(base, proposal.placement).size()) <= budget.layers));
    CHECK(imbalance_of(topology, proposal.placement, loads, down).whole_model <=
          imbalance_of(topology, base, loads, down).whole_model + 1e-6);
  }
}
