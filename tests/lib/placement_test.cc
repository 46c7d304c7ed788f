// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "lib/eplb.h"

namespace {

eplb_topology shape(int32_t layers, int32_t experts, int32_t slots, int32_t gpus, int32_t nodes = 1,
                    int32_t groups = 1) {
  eplb_topology topology;
  eplb_topology_init(&topology);
  topology.layers = layers;
  topology.logical_experts = experts;
  topology.slots = slots;
  topology.gpus = gpus;
  topology.nodes = nodes;
  topology.groups = groups;
  return topology;
}

std::vector<double> drawn_loads(const eplb_topology& topology, uint32_t seed) {
  std::mt19937 random(seed);
  std::lognormal_distribution<double> load(5, 1);
  std::vector<double> loads(static_cast<size_t>(topology.layers) * topology.logical_experts);
  for (double& cell : loads) cell = std::floor(load(random));
  return loads;
}

// Of [layers, width]; a few for a shape that is refused.
size_t cells(const eplb_topology& topology, int32_t width) {
  const int64_t all = int64_t{topology.layers} * width;
  return all > 0 && all < 1'000'000 ? static_cast<size_t>(all) : 1;
}

struct Answer {
  std::vector<int32_t> map, ranks;
  eplb_solution solution;
  eplb_status status = EPLB_OK;
  eplb_error error{};
};

Answer solve(const eplb_topology& topology, const std::vector<double>& loads,
             const eplb_solve_options* options = nullptr) {
  Answer answer;
  answer.map.resize(cells(topology, topology.slots));
  answer.ranks.resize(answer.map.size());
  eplb_solution_init(&answer.solution);
  answer.status = eplb_solve(&topology, loads.data(), options, answer.map.data(),
                             answer.ranks.data(), &answer.solution, &answer.error);
  return answer;
}

eplb_solve_options options_of(int32_t policy) {
  eplb_solve_options options;
  eplb_solve_options_init(&options);
  options.policy = policy;
  return options;
}

std::string fault(const Answer& answer) {
  CHECK(answer.status == EPLB_INVALID_ARGUMENT);
  CHECK(answer.error.message[0] != '\0');
  return answer.error.argument;
}

}  // namespace

TEST_CASE("every policy answers with a valid placement and what it is worth", "[lib]") {
  const eplb_topology topology = shape(3, 32, 48, 8);
  const auto loads = drawn_loads(topology, 1);
  double bound = 0;
  REQUIRE(eplb_bound(&topology, loads.data(), nullptr, nullptr, &bound, nullptr) == EPLB_OK);
  for (const auto policy : {EPLB_DEEPSEEK, EPLB_EVOLVED, EPLB_JOINT, EPLB_INCREMENTAL}) {
    const eplb_solve_options options = options_of(policy);
    const Answer answer = solve(topology, loads, &options);
    INFO("policy " << policy << ": " << answer.error.message);
    REQUIRE(answer.status == EPLB_OK);
    double imbalance = 0;
    REQUIRE(eplb_imbalance(&topology, answer.map.data(), loads.data(), nullptr, &imbalance,
                           nullptr) == EPLB_OK);
    CHECK(answer.solution.imbalance == Approx(imbalance));
    CHECK(imbalance >= bound - 1e-12);
    CHECK(imbalance < 1.5);
    if (policy >= EPLB_JOINT) {
      CHECK(eplb_check(&topology, answer.map.data(), nullptr) == EPLB_OK);
    }
    const int32_t width = answer.solution.most_replicas;
    std::vector<int32_t> slots_of(3 * 32 * static_cast<size_t>(width));
    std::vector<int32_t> count(3 * 32);
    REQUIRE(eplb_replicas(&topology, answer.map.data(), answer.ranks.data(), width, slots_of.data(),
                          count.data(), nullptr) == EPLB_OK);
    for (size_t expert = 0; expert < count.size(); ++expert) {
      for (int32_t i = 0; i < width; ++i) {
        const int32_t slot = slots_of[expert * width + i];
        REQUIRE((slot >= 0) == (i < count[expert]));
        if (slot >= 0) {
          REQUIRE(answer.map[expert / 32 * 48 + slot] == static_cast<int32_t>(expert % 32));
        }
      }
    }
  }
}

TEST_CASE("loads beyond a float's range give whole placements", "[lib]") {
  const eplb_topology topology = shape(1, 8, 12, 4, 2, 4);
  const std::vector<double> loads = {245, 221, 243, 2.6e140, 172, 219, 79, 3e38};
  for (const auto policy : {EPLB_DEEPSEEK, EPLB_EVOLVED, EPLB_JOINT, EPLB_INCREMENTAL}) {
    INFO("policy " << policy);
    const eplb_solve_options options = options_of(policy);
    const Answer answer = solve(topology, loads, &options);
    REQUIRE(answer.status == EPLB_OK);
    for (const int32_t expert : answer.map) CHECK((expert >= 0 && expert < 8));
  }
}

TEST_CASE("a placement in force is kept where it can be", "[lib]") {
  const eplb_topology topology = shape(2, 64, 72, 12);
  const auto loads = drawn_loads(topology, 2);
  const Answer first = solve(topology, loads);
  for (const auto policy : {EPLB_JOINT, EPLB_INCREMENTAL}) {
    eplb_solve_options options = options_of(policy);
    options.current = first.map.data();
    const Answer again = solve(topology, loads, &options);
    REQUIRE(again.status == EPLB_OK);
    CHECK(again.solution.moves < first.solution.moves / 4);
  }
}

TEST_CASE("incremental keeps to its budget, others refuse", "[lib]") {
  const eplb_topology topology = shape(2, 64, 72, 12);
  const auto loads = drawn_loads(topology, 3);
  eplb_solve_options options = options_of(EPLB_INCREMENTAL);
  options.max_moves = 5;
  const Answer few = solve(topology, loads, &options);
  REQUIRE(few.status == EPLB_OK);
  CHECK(few.solution.moves > 0);
  CHECK(few.solution.moves <= 5);
  options.policy = EPLB_JOINT;
  CHECK(solve(topology, loads, &options).status == EPLB_IMPOSSIBLE);
}

TEST_CASE("GPUs that are down hold nothing", "[lib]") {
  const eplb_topology topology = shape(2, 16, 32, 8);
  const auto loads = drawn_loads(topology, 4);
  const int32_t down[] = {2, 5};
  for (const auto policy : {EPLB_JOINT, EPLB_INCREMENTAL}) {
    eplb_solve_options options = options_of(policy);
    options.gpus_down = down;
    options.gpus_down_count = 2;
    const Answer answer = solve(topology, loads, &options);
    REQUIRE(answer.status == EPLB_OK);
    for (size_t i = 0; i < answer.map.size(); ++i) {
      const auto gpu = static_cast<int32_t>(i % 32 / 4);
      REQUIRE((answer.map[i] == -1) == (gpu == 2 || gpu == 5));
    }
    CHECK(eplb_check(&topology, answer.map.data(), nullptr) == EPLB_OK);
    const int32_t most[] = {0, 1, 2, 3, 4};
    options.gpus_down = most;
    options.gpus_down_count = 5;
    const Answer impossible = solve(topology, loads, &options);
    CHECK(impossible.status == EPLB_IMPOSSIBLE);
    CHECK(impossible.error.message[0] != '\0');
  }
}

TEST_CASE("what is wrong is named", "[lib]") {
  const eplb_topology good = shape(1, 8, 12, 4);
  const auto loads = drawn_loads(good, 5);
  CHECK(fault(solve(shape(0, 8, 12, 4), loads)) == "layers");
  CHECK(fault(solve(shape(1, 8, 13, 4), loads)) == "slots");
  CHECK(fault(solve(shape(1, 8, 4, 4), loads)) == "slots");
  CHECK(fault(solve(shape(1, 8, 12, 4, 3), loads)) == "gpus");
  CHECK(fault(solve(shape(1, 8, 12, 4, 1, 9), loads)) == "groups");
  CHECK(fault(solve(shape(2000000000, 2000000000, 2000000000, 1), loads)) == "layers");
  for (const double bad : {-1.0, std::numeric_limits<double>::infinity(), std::nan("")}) {
    auto wrong = loads;
    wrong[3] = bad;
    CHECK(fault(solve(good, wrong)) == "loads");
  }
  CHECK(fault(solve(good, std::vector<double>(8, 1.7e308))) == "loads");

  const std::vector<int32_t> nonsense(12, 8);
  const int32_t twice[] = {1, 1};
  const auto with = [&](auto change) {
    eplb_solve_options options = options_of(EPLB_JOINT);
    change(options);
    return fault(solve(good, loads, &options));
  };
  CHECK(with([](auto& o) { o.policy = 4; }) == "policy");
  CHECK(with([](auto& o) { o.hierarchical = -1; }) == "hierarchical");
  CHECK(with([&](auto& o) { o.current = nonsense.data(); }) == "current");
  CHECK(with([](auto& o) { o.gpus_down_count = 1; }) == "gpus_down");
  CHECK(with([&](auto& o) { o.gpus_down = twice, o.gpus_down_count = 2; }) == "gpus_down");
  CHECK(with([](auto& o) { o.max_moves = -1; }) == "max_moves");
  CHECK(with([](auto& o) { o.settle = std::nan(""); }) == "settle");
  CHECK(with([](auto& o) { o.min_gain = -1; }) == "min_gain");
  CHECK(with([](auto& o) { o.time_budget_seconds = 1e300; }) == "time_budget_seconds");
  CHECK(with([](auto& o) { o.struct_size = 0; }) == "options");

  std::vector<int32_t> map(12);
  CHECK(eplb_solve(nullptr, loads.data(), nullptr, map.data(), nullptr, nullptr, nullptr) ==
        EPLB_INVALID_ARGUMENT);
  CHECK(eplb_solve(&good, nullptr, nullptr, map.data(), nullptr, nullptr, nullptr) ==
        EPLB_INVALID_ARGUMENT);
  CHECK(eplb_solve(&good, loads.data(), nullptr, nullptr, nullptr, nullptr, nullptr) ==
        EPLB_INVALID_ARGUMENT);
}

TEST_CASE("a caller built with an older header gets defaults for what it lacks", "[lib]") {
  const eplb_topology topology = shape(1, 8, 12, 4);
  const auto loads = drawn_loads(topology, 6);
  eplb_solve_options options = options_of(EPLB_DEEPSEEK);
  options.seed = 7;
  options.settle = -1;  // beyond what such a caller knows of
  options.struct_size = offsetof(eplb_solve_options, current);
  CHECK(solve(topology, loads, &options).status == EPLB_OK);
  eplb_solution solution;
  eplb_solution_init(&solution);
  solution.struct_size = offsetof(eplb_solution, moves);
  solution.moves = -7;
  std::vector<int32_t> map(12);
  REQUIRE(eplb_solve(&topology, loads.data(), nullptr, map.data(), nullptr, &solution, nullptr) ==
          EPLB_OK);
  CHECK(solution.imbalance >= 1);
  CHECK(solution.moves == -7);
}

TEST_CASE("threads solve side by side and get what one gets", "[lib]") {
  const eplb_topology topology = shape(4, 64, 80, 16);
  const auto loads = drawn_loads(topology, 8);
  const Answer alone = solve(topology, loads);
  std::vector<Answer> answers(4);
  std::vector<std::thread> threads;
  for (Answer& answer : answers) {
    threads.emplace_back([&] { answer = solve(topology, loads); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Answer& answer : answers) CHECK(answer.map == alone.map);
}

TEST_CASE("random calls are answered or refused, never worse", "[lib]") {
  std::mt19937 random(9);
  const auto draw = [&](int32_t from, int32_t to) {
    return std::uniform_int_distribution<int32_t>(from, to)(random);
  };
  int answered = 0;
  for (int i = 0; i < 800; ++i) {
    // One after another: a call's arguments have no order.
    const int32_t gpus = draw(0, 9);
    const int32_t layers = draw(0, 3);
    const int32_t experts = draw(0, 20);
    const int32_t slots = gpus * draw(0, 5) + draw(0, 9) / 9;
    const int32_t nodes = draw(0, 3);
    const int32_t groups = draw(0, 4);
    const eplb_topology topology = shape(layers, experts, slots, gpus, nodes, groups);
    std::vector<double> loads(cells(topology, 20));
    for (double& load : loads) load = draw(0, 9) == 0 ? 0 : draw(0, 1000);
    std::vector<int32_t> current(cells(topology, topology.slots));
    for (int32_t& expert : current) expert = draw(-1, std::max(topology.logical_experts, 1) - 1);
    const int32_t down[] = {draw(0, 8)};
    eplb_solve_options options = options_of(draw(0, 3));
    options.hierarchical = draw(0, 2);
    if (draw(0, 1) == 1) options.current = current.data();
    options.gpus_down = down;
    options.gpus_down_count = static_cast<size_t>(draw(0, 1));
    options.max_moves = draw(0, 1) * draw(0, 20);
    const Answer answer = solve(topology, loads, &options);
    INFO("call " << i << ": " << answer.error.argument << ": " << answer.error.message);
    CHECK(answer.status != EPLB_INTERNAL);
    if (answer.status != EPLB_OK) continue;
    ++answered;
    const bool ours = options.policy >= EPLB_JOINT || options.current;
    // Kept on a node, fewer experts than a GPU has slots may lie there.
    const int32_t regions = answer.solution.hierarchical ? topology.nodes : 1;
    if (ours && topology.slots / gpus <= topology.logical_experts / regions) {
      eplb_error wrong;
      const eplb_status checked = eplb_check(&topology, answer.map.data(), &wrong);
      INFO("policy " << options.policy << ": " << wrong.message);
      CHECK(checked == EPLB_OK);
    }
  }
  CHECK(answered > 20);
}
