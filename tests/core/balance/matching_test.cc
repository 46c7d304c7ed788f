// SPDX-License-Identifier: Apache-2.0
#include "core/balance/matching.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <random>

#include "core/balance/balancer.h"
#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "tests/core/shapes.h"

using namespace eplbd;

namespace {

int32_t gained(std::span<const Gain> gains, std::span<const int32_t> column_of) {
  int32_t sum = 0;
  for (const Gain& gain : gains) {
    if (column_of[gain.row] == gain.column) sum += gain.gain;
  }
  return sum;
}

// A placement in which each expert has a slot and the rest is drawn, no expert twice on a GPU.
Placement drawn_placement(const Topology& topology, std::mt19937& random) {
  const int32_t width = topology.slots_per_gpu();
  std::vector<int32_t> map;
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    std::vector<int32_t> row(topology.slots);
    for (int32_t slot = 0; slot < topology.slots; ++slot)
      row[slot] = slot % topology.logical_experts;
    for (int32_t tries = 0; tries < 40 * topology.slots; ++tries) {
      const auto a = static_cast<int32_t>(random() % row.size());
      const auto b = static_cast<int32_t>(random() % row.size());
      const auto holds = [&](int32_t gpu, int32_t expert) {
        const auto begin = row.begin() + gpu * width;
        return std::find(begin, begin + width, expert) != begin + width;
      };
      if (holds(a / width, row[b]) || holds(b / width, row[a])) continue;
      std::swap(row[a], row[b]);
    }
    map.insert(map.end(), row.begin(), row.end());
  }
  return {topology, map};
}

// What lies on each GPU, sorted; of a layer.
std::vector<std::vector<int32_t>> contents(const Topology& topology, std::span<const int32_t> row,
                                           int32_t first_gpu, int32_t gpus) {
  const int32_t width = topology.slots_per_gpu();
  std::vector<std::vector<int32_t>> all;
  for (int32_t gpu = first_gpu; gpu < first_gpu + gpus; ++gpu) {
    all.emplace_back(row.begin() + gpu * width, row.begin() + (gpu + 1) * width);
    std::sort(all.back().begin(), all.back().end());
  }
  std::sort(all.begin(), all.end());
  return all;
}

// The fewest moves over all ways to deal GPUs out, of one layer.
int64_t fewest_moves(const Topology& topology, const Placement& base, const Placement& next) {
  const int32_t width = topology.slots_per_gpu();
  std::vector<int32_t> order(topology.gpus);
  std::iota(order.begin(), order.end(), 0);
  int64_t fewest = topology.slots;
  do {
    std::vector<int32_t> map(topology.slots);
    for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) {
      std::copy_n(next.map().begin() + order[gpu] * width, width, map.begin() + gpu * width);
    }
    fewest = std::min(fewest, count_moves(topology, base, {topology, map}).total);
  } while (std::next_permutation(order.begin(), order.end()));
  return fewest;
}

}  // namespace

TEST_CASE("an assignment gains as much as any", "[matching]") {
  std::mt19937 random(5);
  for (int32_t tries = 0; tries < 400; ++tries) {
    const auto count = static_cast<int32_t>(1 + random() % 7);
    const uint32_t most = 1 + random() % 6;
    std::vector<Gain> gains;
    for (int32_t row = 0; row < count; ++row) {
      for (int32_t column = 0; column < count; ++column) {
        const auto gain = static_cast<int32_t>(random() % most);
        if (gain > 0) gains.push_back({row, column, gain});
      }
    }
    const auto column_of = best_assignment(count, gains);
    std::vector<int32_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    CHECK(std::is_permutation(order.begin(), order.end(), column_of.begin(), column_of.end()));
    int32_t best = 0;
    do {
      best = std::max(best, gained(gains, order));
    } while (std::next_permutation(order.begin(), order.end()));
    CHECK(gained(gains, column_of) == best);
  }
}

TEST_CASE("where all is equal everyone stays", "[matching]") {
  std::vector<Gain> gains;
  for (int32_t row = 0; row < 6; ++row) {
    for (int32_t column = 0; column < 6; ++column) gains.push_back({row, column, 2});
  }
  CHECK(best_assignment(6, {}) == std::vector<int32_t>{0, 1, 2, 3, 4, 5});
  CHECK(best_assignment(6, gains) == std::vector<int32_t>{0, 1, 2, 3, 4, 5});
}

TEST_CASE("GPUs that only changed places are put back", "[matching]") {
  const Topology topology = make_topology(3, 256, 288, 144);
  std::mt19937 random(7);
  const Placement base = drawn_placement(topology, random);
  std::vector<int32_t> map = base.map();
  for (int32_t layer = 0; layer < 3; ++layer) {
    std::rotate(map.begin() + layer * 288, map.begin() + layer * 288 + 2 * (50 + layer),
                map.begin() + (layer + 1) * 288);
  }
  CHECK(match_gpus(topology, base, {topology, map}, {}, false) == base);
}

TEST_CASE("matched, an update moves as little as any relabelling", "[matching]") {
  std::mt19937 random(11);
  for (int32_t tries = 0; tries < 20; ++tries) {
    const Topology topology = make_topology(1, 14, 18, 6);
    const Placement base = drawn_placement(topology, random);
    const Placement next = drawn_placement(topology, random);
    const Placement matched = match_gpus(topology, base, next, {}, false);
    CHECK(contents(topology, matched.layer(0), 0, 6) == contents(topology, next.layer(0), 0, 6));
    CHECK_FALSE(find_violation(topology, matched, {GroupRule::none, &base, {}, false}));
    CHECK(count_moves(topology, base, matched).total == fewest_moves(topology, base, next));
  }
}

TEST_CASE("GPUs stand in only for those as fast, and what is down stays empty", "[matching]") {
  Topology topology = make_topology(1, 20, 32, 8);
  topology.gpu_speeds = {1, 2, 1, 2, 1, 2, 1, 2};
  const std::vector<int32_t> down{2, 5};
  std::mt19937 random(3);
  for (int32_t tries = 0; tries < 20; ++tries) {
    const Placement base = drawn_placement(topology, random);
    const auto loads = skewed_loads(topology, static_cast<uint32_t>(tries));
    const auto next = [&] {
      // From scratch for the GPUs that are up, all of one speed content swapped about.
      std::vector<int32_t> map(topology.slots, kNoExpert);
      int32_t expert = tries;
      for (int32_t slot = 0; slot < topology.slots; ++slot) {
        if (std::find(down.begin(), down.end(), topology.gpu_of(slot)) == down.end()) {
          map[slot] = expert++ % 20;
        }
      }
      return Placement(topology, map);
    }();
    const Placement matched = match_gpus(topology, base, next, down, false);
    CHECK_FALSE(find_violation(topology, matched, {GroupRule::none, &base, down, false}));
    CHECK(imbalance_of(topology, matched, loads, down).whole_model ==
          Approx(imbalance_of(topology, next, loads, down).whole_model));
    CHECK(count_moves(topology, base, matched).total <= count_moves(topology, base, next).total);
    const auto of_speed = [&](const Placement& placement, double speed) {
      std::vector<std::vector<int32_t>> all;
      for (int32_t gpu = 0; gpu < 8; ++gpu) {
        if (topology.gpu_speed(gpu) != speed) continue;
        all.push_back(contents(topology, placement.layer(0), gpu, 1).front());
      }
      std::sort(all.begin(), all.end());
      return all;
    };
    CHECK(of_speed(matched, 1) == of_speed(next, 1));
    CHECK(of_speed(matched, 2) == of_speed(next, 2));
  }
}

TEST_CASE("groups stay together on a node, whichever that is", "[matching]") {
  const Topology topology = make_topology(2, 64, 96, 8, 4, 8);
  std::mt19937 random(9);
  // Node n of `next` is node (n + 1) % 4 of `base`, and a few of its slots are others.
  std::vector<int32_t> map;
  for (int32_t layer = 0; layer < 2; ++layer) {
    for (int32_t slot = 0; slot < 96; ++slot) map.push_back(slot / 24 * 16 + slot % 24 % 16);
  }
  const Placement base(topology, map);
  for (int32_t layer = 0; layer < 2; ++layer) {
    const auto row = map.begin() + layer * 96;
    std::rotate(row, row + 24, row + 96);
    std::swap(row[9], row[14]);
  }
  const Placement next(topology, map);
  const Placement matched = match_gpus(topology, base, next, {}, true);
  CHECK_FALSE(find_violation(topology, matched, {GroupRule::one_node, &base, {}, true}));
  CHECK(count_moves(topology, base, matched).total == 4);
  // Without its GPU that is down a node is not like the others.
  const std::vector<int32_t> down{0};
  for (int32_t layer = 0; layer < 2; ++layer) {
    std::fill_n(map.begin() + layer * 96, 12, kNoExpert);
  }
  const Placement fewer(topology, map);
  const Placement kept = match_gpus(topology, base, fewer, down, true);
  for (int32_t layer = 0; layer < 2; ++layer) {
    CHECK(contents(topology, kept.layer(layer), 0, 2) ==
          contents(topology, fewer.layer(layer), 0, 2));
  }
}
