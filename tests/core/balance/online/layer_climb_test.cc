// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/layer_climb.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "core/model/placement.h"
#include "tests/core/shapes.h"

using namespace eplbd;

namespace {

using Row = std::vector<int32_t>;

// Everything computed anew, in the plainest way.
struct Plain {
  const Topology& topology;
  std::vector<std::vector<double>> loads;  // [scenarios, experts]
  std::vector<double> weights;             // [scenarios]
  Row base;

  bool holds(const Row& row, int32_t gpu, int32_t expert) const {
    const auto first = row.begin() + static_cast<ptrdiff_t>(gpu) * topology.slots_per_gpu();
    const auto last = first + topology.slots_per_gpu();
    return std::find(first, last, expert) != last;
  }

  // [gpus] in mean GPU loads.
  std::vector<double> gpu_loads(const Row& row, size_t scenario) const {
    double sum = 0;
    for (const double load : loads[scenario]) sum += load;
    double speed = 0;
    for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) speed += topology.gpu_speed(gpu);
    std::vector<double> result(topology.gpus);
    for (int32_t slot = 0; slot < topology.slots; ++slot) {
      const int32_t gpu = topology.gpu_of(slot);
      const auto replicas = std::count(row.begin(), row.end(), row[slot]);
      result[gpu] += loads[scenario][row[slot]] / static_cast<double>(replicas) / (sum / speed) /
                     topology.gpu_speed(gpu);
    }
    return result;
  }

  std::vector<double> terms(const Row& row) const {
    std::vector<double> result(topology.gpus);
    for (size_t scenario = 0; scenario < loads.size(); ++scenario) {
      const auto gpus = gpu_loads(row, scenario);
      for (size_t gpu = 0; gpu < gpus.size(); ++gpu) {
        result[gpu] += weights[scenario] * std::pow(gpus[gpu], 8);
      }
    }
    return result;
  }

  double sum_of_powers(const Row& row) const {
    double sum = 0;
    for (const double term : terms(row)) sum += term;
    return sum;
  }

  int32_t moves(const Row& row) const {
    int32_t count = 0;
    for (int32_t slot = 0; slot < topology.slots; ++slot) {
      count += !holds(base, topology.gpu_of(slot), row[slot]);
    }
    return count;
  }

  // Drop of the soft maximum per move.
  double merit(const Row& from, const Row& to) const {
    const double sum = sum_of_powers(from);
    const double slope = std::pow(sum / topology.gpus, 1.0 / 8) / (8 * sum);
    return (sum - sum_of_powers(to)) * slope / std::max(moves(to) - moves(from), 1);
  }

  // The climb takes both for worse than they are when a third GPU has one rise as the other falls.
  bool meet_on_a_third(const Row& row, int32_t one, int32_t other, int32_t gpu,
                       int32_t fullest) const {
    for (int32_t third = 0; third < topology.gpus; ++third) {
      if (third == gpu || third == fullest) continue;
      if (holds(row, third, one) && holds(row, third, other)) return true;
    }
    return false;
  }

  // Of all steps that change something about the fullest GPU.
  double best_merit(const Row& row) const {
    const auto powers = terms(row);
    const auto fullest =
        static_cast<int32_t>(std::max_element(powers.begin(), powers.end()) - powers.begin());
    double best = 0;
    const auto try_row = [&](const Row& next) { best = std::max(best, merit(row, next)); };
    const auto turn_over = [&](int32_t slot, int32_t expert) {
      if (std::count(row.begin(), row.end(), row[slot]) < 2) return;
      if (holds(row, topology.gpu_of(slot), expert)) return;
      Row next = row;
      next[slot] = expert;
      try_row(next);
    };
    for (int32_t slot = 0; slot < topology.slots; ++slot) {
      if (topology.gpu_of(slot) != fullest) continue;
      for (int32_t expert = 0; expert < topology.logical_experts; ++expert) turn_over(slot, expert);
      for (int32_t other = 0; other < topology.slots; ++other) {
        const int32_t gpu = topology.gpu_of(other);
        if (gpu == fullest) continue;
        if (!meet_on_a_third(row, row[slot], row[other], gpu, fullest)) {
          turn_over(other, row[slot]);
        }
        if (holds(row, gpu, row[slot]) || holds(row, fullest, row[other])) continue;
        Row next = row;
        std::swap(next[slot], next[other]);
        try_row(next);
      }
    }
    return best;
  }
};

Plain drawn(const Topology& topology, std::vector<double> weights, uint32_t seed) {
  std::mt19937 random(seed);
  std::lognormal_distribution<double> popularity(0, 0.8);
  Plain plain{topology, {}, std::move(weights), {}};
  for (size_t scenario = 0; scenario < plain.weights.size(); ++scenario) {
    std::vector<double> loads;
    for (int32_t expert = 0; expert < topology.logical_experts; ++expert) {
      loads.push_back(1000 * popularity(random));
    }
    plain.loads.push_back(std::move(loads));
  }
  const Placement initial = Placement::initial(topology);
  plain.base.assign(initial.layer(0).begin(), initial.layer(0).end());
  return plain;
}

LayerClimb climb_of(const Plain& plain) { return LayerClimb(plain.topology, {}, false); }

bool start(LayerClimb& climb, const Plain& plain) {
  std::vector<WeighedLoad> loads;
  for (size_t scenario = 0; scenario < plain.loads.size(); ++scenario) {
    loads.push_back({plain.loads[scenario], plain.weights[scenario]});
  }
  return climb.start(plain.base, loads);
}

Row row_of(const LayerClimb& climb) {
  return {climb.slot_to_expert().begin(), climb.slot_to_expert().end()};
}

}  // namespace

TEST_CASE("every step is the best that there is", "[climb]") {
  struct Shape {
    int32_t experts, slots, gpus;
    std::vector<double> speeds;
  };
  const auto shape = GENERATE(Shape{32, 40, 8, {}}, Shape{36, 48, 12, {}}, Shape{24, 32, 4, {}},
                              Shape{16, 40, 10, {}}, Shape{24, 32, 4, {1, 2, 1, 1.5}});
  const auto weights =
      GENERATE(std::vector{1.0}, std::vector{0.7, 0.3}, std::vector{0.4, 0.3, 0.2, 0.1});
  Topology topology = make_topology(1, shape.experts, shape.slots, shape.gpus);
  topology.gpu_speeds = shape.speeds;
  const Plain plain = drawn(topology, weights, GENERATE(1U, 2U, 3U));
  LayerClimb climb = climb_of(plain);
  REQUIRE(start(climb, plain));
  constexpr double kLeast = 1e-4;
  int steps = 0;
  for (Row row = row_of(climb); steps < 100; ++steps) {
    const double best = plain.best_merit(row);
    if (best < 2 * kLeast) break;  // from here on the climb goes by a higher power
    const auto step = climb.improve(kLeast);
    REQUIRE(step);
    const Row next = row_of(climb);
    CHECK(plain.merit(row, next) >= best * (1 - 1e-3));
    CHECK(step->moves == plain.moves(next) - plain.moves(row));
    row = next;
  }
  CHECK(steps > 3);
}

TEST_CASE("a load in two halves is one load", "[climb]") {
  const Topology topology = make_topology(1, 128, 144, 16);
  const Plain whole = drawn(topology, {1}, 7);
  Plain halves = whole;
  halves.weights = {0.5, 0.5};
  halves.loads.push_back(whole.loads[0]);
  LayerClimb one = climb_of(whole);
  LayerClimb two = climb_of(halves);
  REQUIRE(start(one, whole));
  REQUIRE(start(two, halves));
  while (one.improve(1e-4) && two.improve(1e-4)) {
  }
  CHECK(one.expected_peak(50) == Approx(two.expected_peak(50)).margin(0.005));
}

TEST_CASE("the expected peak is that of its definition", "[climb]") {
  const Topology topology = make_topology(1, 60, 72, 12);
  const Plain plain = drawn(topology, {0.6, 0.4}, 3);
  LayerClimb climb = climb_of(plain);
  REQUIRE(start(climb, plain));
  for (const double sharpness : {5.0, 50.0, 1e4}) {
    double expected = 0;
    for (size_t scenario = 0; scenario < 2; ++scenario) {
      const auto gpus = plain.gpu_loads(plain.base, scenario);
      const double peak = *std::max_element(gpus.begin(), gpus.end());
      double sum = 0;
      for (const double load : gpus) sum += std::exp(sharpness * (load - peak));
      expected += plain.weights[scenario] * (peak + std::log(sum) / sharpness);
    }
    CHECK(climb.expected_peak(sharpness) == Approx(expected).epsilon(1e-6));
  }
}

TEST_CASE("what is of no use is taken back, and nothing else", "[climb]") {
  const Topology topology = make_topology(1, 60, 72, 12);
  const Plain plain = drawn(topology, {0.7, 0.3}, 5);
  for (const double sharpness : {20.0, 200.0}) {
    LayerClimb climb = climb_of(plain);
    REQUIRE(start(climb, plain));
    while (climb.improve(1e-6)) {
    }
    for (const double price : {0.0005, 0.002, 10.0}) {
      CAPTURE(sharpness, price);
      int32_t moves =
          plain.moves(Row(climb.slot_to_expert().begin(), climb.slot_to_expert().end()));
      REQUIRE(moves > 0);
      double cost = climb.expected_peak(sharpness) + price * moves;
      climb.begin_to_take_back(sharpness, price);
      while (const auto step = climb.take_back()) {
        const Row row(climb.slot_to_expert().begin(), climb.slot_to_expert().end());
        moves += step->moves;
        REQUIRE(moves == plain.moves(row));
        const double after = climb.expected_peak(sharpness) + price * moves;
        CHECK(after < cost + 1e-5);
        cost = after;
        for (int32_t expert = 0; expert < topology.logical_experts; ++expert) {
          REQUIRE(std::find(row.begin(), row.end(), expert) != row.end());
        }
      }
    }
    // At such a price nothing is worth a move. What only several at once could undo stays.
    const Row last(climb.slot_to_expert().begin(), climb.slot_to_expert().end());
    CHECK(plain.moves(last) <= 4);
  }
}
