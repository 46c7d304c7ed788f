// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "core/balance/bound.h"
#include "core/balance/policies.h"
#include "core/balance/random.h"
#include "core/model/imbalance.h"
#include "tests/core/balance/scratch/regions.h"

using namespace eplbd;

namespace {

struct Instance {
  Topology topology;
  std::vector<double> loads;
};

Instance instance(int32_t experts, int32_t slots_per_gpu, int32_t gpus, std::vector<double> loads) {
  Instance result;
  result.topology.layers = 1;
  result.topology.logical_experts = experts;
  result.topology.slots = slots_per_gpu * gpus;
  result.topology.gpus = gpus;
  result.loads = std::move(loads);
  return result;
}

double peak(const Instance& instance, const Placement& placement) {
  const auto loads = gpu_loads(instance.topology, placement, instance.loads);
  return *std::max_element(loads.begin(), loads.end());
}

Placement place(Policy policy, const Topology& topology, const std::vector<double>& loads) {
  return make_scratch_policy({policy})->place(topology, loads, {}).placement;
}

Placement place_jointly(const Instance& instance, uint64_t seed = 0,
                        std::function<bool()> keep_searching = {}) {
  const auto joint =
      make_joint({Policy::joint, Hierarchical::automatic, seed}, std::move(keep_searching));
  return joint->place(instance.topology, instance.loads, {}).placement;
}

double bound_of(const Instance& instance) {
  const std::vector<double> speeds(static_cast<size_t>(instance.topology.gpus), 1.0);
  return peak_bound(instance.loads, speeds, instance.topology.slots_per_gpu());
}

double least_peak(const Instance& instance) {
  return Exhaustive(instance.loads, instance.topology.gpus, instance.topology.slots_per_gpu())
      .least();
}

std::vector<double> joint_imbalances(const Instance& x) {  // [layers]
  return imbalance_of(x.topology, place_jointly(x), x.loads).layers;
}

Instance random_small_instance(Random& random) {
  constexpr int32_t kShapes[][3] = {{4, 2, 3}, {5, 2, 4}, {6, 2, 4}, {6, 3, 3}, {5, 3, 4},
                                    {6, 2, 3}, {7, 3, 3}, {6, 4, 3}, {8, 4, 2}, {4, 1, 6}};
  const auto& [experts, slots_per_gpu, gpus] = kShapes[random.below(10)];
  const double skew = random.between(1, 4);
  std::vector<double> loads;
  for (int32_t i = 0; i < experts; ++i) {
    loads.push_back(std::round(1000 * std::pow(random.between(0.02, 1), skew)));
  }
  return instance(experts, slots_per_gpu, gpus, std::move(loads));
}

// A ten thousandth beside `evolved` on every layer, and better than both in the mean.
void check_promise(const Topology& topology, const std::vector<double>& loads) {
  const auto imbalance = [&](Policy policy) {
    return imbalance_of(topology, place(policy, topology, loads), loads);
  };
  const auto joint = imbalance(Policy::joint);
  const auto evolved = imbalance(Policy::evolved);
  const auto bound = imbalance_bound({Policy::joint}, topology, loads, {});
  CHECK(joint.whole_model <= evolved.whole_model);
  CHECK(joint.whole_model <= imbalance(Policy::deepseek).whole_model);
  for (size_t layer = 0; layer < joint.layers.size(); ++layer) {
    INFO("layer " << layer);
    CHECK(joint.layers[layer] <= evolved.layers[layer] * (1 + 1e-4));
    CHECK(joint.layers[layer] >= bound.layers[layer] * (1 - 1e-9));
  }
}

}  // namespace

TEST_CASE("joint finds the optimum of the eight-expert example") {
  const Instance example = instance(8, 2, 8, {600, 560, 120, 120, 20, 10, 10, 10});
  CHECK(peak(example, place_jointly(example)) == Approx(590.0 / 3).epsilon(1e-9));
}

TEST_CASE("joint is optimal on small instances, and bounds are never above the optimum") {
  Random random(42);
  constexpr int kInstances = 1000;
  int optimal = 0;
  for (int i = 0; i < kInstances; ++i) {
    const Instance small = random_small_instance(random);
    const double least = least_peak(small);
    const double found = peak(small, place_jointly(small));
    INFO("instance " << i);
    REQUIRE(bound_of(small) <= least * (1 + 1e-9));
    REQUIRE(found >= least * (1 - 1e-9));
    CHECK(found <= least * 1.01);
    if (found <= least * (1 + 1e-9)) ++optimal;
  }
  WARN("optimal on " << optimal << " of " << kInstances);
  CHECK(optimal >= kInstances * 95 / 100);
}

// On each node only its own groups' experts, two groups of two, in whatever way they are dealt.
TEST_CASE("joint is optimal where groups are few and small, too") {
  constexpr int32_t kGroups = 8;
  Random random(7);
  for (int i = 0; i < 60; ++i) {
    Instance small = instance(2 * kGroups, 3, kGroups, {});
    small.topology.groups = kGroups;
    small.topology.nodes = kGroups / 2;
    for (int expert = 0; expert < 2 * kGroups; ++expert) {
      small.loads.push_back(std::round(1000 * std::pow(random.between(0.02, 1), 3)));
    }
    const auto least_of = [&](int32_t group, int32_t other) {
      const auto& loads = small.loads;
      return Exhaustive(
                 {loads[2 * group], loads[2 * group + 1], loads[2 * other], loads[2 * other + 1]},
                 2, 3)
          .least();
    };
    // The lowest peak that the groups which are left can be dealt with.
    const auto least = [&](auto& self, uint32_t left) -> double {
      if (left == 0) return 0;
      const int32_t group = std::countr_zero(left);
      double best = std::numeric_limits<double>::infinity();
      for (int32_t other = group + 1; other < kGroups; ++other) {
        const uint32_t both = uint32_t{1} << group | uint32_t{1} << other;
        if ((left & both) != both) continue;
        best = std::min(best, std::max(least_of(group, other), self(self, left & ~both)));
      }
      return best;
    };
    INFO("instance " << i);
    CHECK(peak(small, place_jointly(small)) ==
          Approx(least(least, (uint32_t{1} << kGroups) - 1)).epsilon(1e-9));
  }
}

TEST_CASE("joint keeps what it promises beside the published policies") {
  // experts, slots, groups, nodes, GPUs
  constexpr int32_t kShapes[][5] = {
      {64, 72, 8, 2, 8}, {128, 144, 1, 1, 16}, {32, 40, 1, 1, 8}, {64, 96, 1, 1, 24}};
  for (const auto& shape : kShapes) {
    Topology topology;
    topology.layers = 4;
    topology.logical_experts = shape[0];
    topology.slots = shape[1];
    topology.groups = shape[2];
    topology.nodes = shape[3];
    topology.gpus = shape[4];
    for (const double skew : {1.0, 3.0, 8.0}) {
      // As they come, and few tokens of each expert: all loads are then multiples of one that is
      // far from small beside a GPU's.
      for (const double batch : {0.0, 1e3}) {
        Random random(static_cast<uint64_t>(skew));
        std::vector<double> loads;
        for (int i = 0; i < topology.layers * shape[0]; ++i) {
          const double load = 1e5 * std::pow(random.between(0, 1), skew);
          loads.push_back(batch == 0 ? load : std::round(load / batch) * batch);
        }
        INFO(shape[0] << " experts, " << shape[4] << " GPUs, skew " << skew << ", batch " << batch);
        check_promise(topology, loads);
      }
    }
  }
}

// Few slots beside heavy experts: the search stays far from even, and greedy packing may be lucky.
TEST_CASE("joint is no worse than deepseek where neither comes near the bound") {
  Topology topology;
  topology.layers = 20;
  topology.logical_experts = 256;
  topology.slots = 288;
  topology.gpus = 72;
  Random random(2);
  std::vector<double> loads;
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    std::vector<double> row;
    for (int32_t rank = 1; rank <= topology.logical_experts; ++rank) {
      row.push_back(std::round(1e8 / rank));
    }
    for (int32_t i = topology.logical_experts - 1; i > 0; --i) {
      std::swap(row[i], row[random.below(i + 1)]);
    }
    loads.insert(loads.end(), row.begin(), row.end());
  }
  const Placement joint = place(Policy::joint, topology, loads);
  const PlacementRules rules{GroupRule::none, nullptr, {}, false};
  CHECK_FALSE(find_violation(topology, joint, rules));
  const auto ours = imbalance_of(topology, joint, loads).layers;
  const auto greedy =
      imbalance_of(topology, place(Policy::deepseek, topology, loads), loads).layers;
  for (size_t layer = 0; layer < ours.size(); ++layer) {
    INFO("layer " << layer);
    CHECK(ours[layer] <= greedy[layer] * (1 + 1e-9));
  }
}

TEST_CASE("joint evens out a node of eight GPUs to a few hundred thousandths of its mean") {
  const Instance node = [] {
    Instance result = instance(64, 9, 8, {});
    result.topology.layers = 12;
    return result;
  }();
  for (const double skew : {0.5, 1.0}) {
    // Whole tokens, one by one or in batches: then only so many loads of a GPU are possible.
    for (const double batch : {0.0, 1.0, 128.0}) {
      Random random(17);
      std::vector<double> loads;
      for (int i = 0; i < 12 * 64; ++i) {
        const double load = 1e5 * std::exp(skew * 3 * (random.between(0, 1) - 0.5));
        loads.push_back(batch == 0 ? load : std::round(load / batch) * batch);
      }
      const Placement placement = place(Policy::joint, node.topology, loads);
      CHECK_FALSE(find_violation(node.topology, placement));
      const auto layers = imbalance_of(node.topology, placement, loads).layers;
      for (size_t layer = 0; layer < layers.size(); ++layer) {
        double tokens = 0;
        for (size_t i = layer * 64; i < (layer + 1) * 64; ++i) tokens += loads[i];
        INFO("skew " << skew << ", batches of " << batch << ", layer " << layer);
        CHECK(layers[layer] <= 1 + 3e-5 + batch / (tokens / 8));
      }
    }
  }
}

TEST_CASE("joint evens out five slots a GPU to a few ten thousandths") {
  Instance small = instance(32, 5, 8, {});
  small.topology.layers = 12;
  Random random(23);
  for (int i = 0; i < 12 * 32; ++i) {
    small.loads.push_back(1e5 * std::exp(3 * (random.between(0, 1) - 0.5)));
  }
  const auto layers = joint_imbalances(small);
  CHECK(*std::max_element(layers.begin(), layers.end()) <= 1 + 3e-4);
}

TEST_CASE("joint gives the hottest fewer replicas where there is no room beside them") {
  // The hottest of 256 experts after Zipf and 63 others: where it gets as many replicas as there
  // are GPUs, the next do not fit beside any.
  constexpr int kLayers = 24;
  Instance node = instance(64, 9, 8, {});
  node.topology.layers = kLayers;
  Random random(3);
  for (int layer = 0; layer < kLayers; ++layer) {
    node.loads.push_back(1e8);
    for (int i = 0; i < 63; ++i) node.loads.push_back(std::round(1e8 / (4 + random.below(253))));
  }
  const auto layers = joint_imbalances(node);
  const auto bound = imbalance_bound({Policy::joint}, node.topology, node.loads, {}).layers;
  for (int layer = 0; layer < kLayers; ++layer) {
    INFO("layer " << layer);
    CHECK(layers[layer] <= bound[layer] * (1 + 1e-4));
  }
}

TEST_CASE("joint at two slots a GPU is as good as long random changes of counts") {
  constexpr int32_t kGpus = 144;
  constexpr int32_t kExperts = 256;
  Random random(11);
  for (int i = 0; i < 4; ++i) {
    Instance pairs = instance(kExperts, 2, kGpus, {});
    for (int e = 0; e < kExperts; ++e) {
      double normal = -6;
      for (int u = 0; u < 12; ++u) normal += random.between(0, 1);
      pairs.loads.push_back(1e5 * std::exp(0.5 * normal));
    }
    // The heaviest replica with the lightest, and so on: the best there is for given counts.
    const auto fullest_pair = [&](const std::vector<int32_t>& counts) {
      std::vector<double> shares;
      for (size_t e = 0; e < counts.size(); ++e) {
        shares.insert(shares.end(), counts[e], pairs.loads[e] / counts[e]);
      }
      std::sort(shares.begin(), shares.end());
      double most = 0;
      for (int32_t g = 0; g < kGpus; ++g) {
        most = std::max(most, shares[g] + shares[2 * kGpus - 1 - g]);
      }
      return most;
    };
    std::vector<int32_t> counts(kExperts, 1);
    for (int spare = 0; spare < 2 * kGpus - kExperts; ++spare) ++counts[random.below(kExperts)];
    double least = fullest_pair(counts);
    for (int change = 0; change < 10000; ++change) {
      int32_t from = random.below(kExperts);
      while (counts[from] == 1) from = random.below(kExperts);
      auto changed = counts;
      --changed[from];
      ++changed[random.below(kExperts)];
      const double most = fullest_pair(changed);
      if (most > least) continue;
      least = most;
      counts = std::move(changed);
    }
    INFO("instance " << i);
    CHECK(peak(pairs, place_jointly(pairs)) <= least * 1.005);
  }
}

TEST_CASE("joint gives slow GPUs less") {
  Instance uneven = instance(16, 5, 4, {});
  uneven.topology.gpu_speeds = {1.0, 1.0, 2.0, 2.0};
  Random random(3);
  for (int i = 0; i < 16; ++i) uneven.loads.push_back(random.between(50, 150));
  const double total = std::accumulate(uneven.loads.begin(), uneven.loads.end(), 0.0);
  const double bound = peak_bound(uneven.loads, uneven.topology.gpu_speeds, 5);
  CHECK(bound >= total / 6 * (1 - 1e-12));
  const double found = peak(uneven, place_jointly(uneven));
  CHECK(found >= bound * (1 - 1e-9));
  CHECK(found <= bound * 1.01);
}

TEST_CASE("more time never makes a placement worse, and is not asked for past the bound") {
  Random random(9);
  Instance hard = instance(24, 2, 16, {});
  for (int i = 0; i < 24; ++i) hard.loads.push_back(std::pow(random.between(0.1, 1), 3));
  const double at_its_end = peak(hard, place_jointly(hard));
  int asked = 0;
  const Placement longer = place_jointly(hard, 0, [&] { return ++asked < 2000; });
  CHECK(peak(hard, longer) <= at_its_end);

  const Instance even = instance(16, 2, 8, std::vector<double>(16, 1.0));
  place_jointly(even, 0, [&]() -> bool { throw std::logic_error("asked"); });
}

TEST_CASE("bounds see what the mean does not") {
  const std::vector<double> speeds(4, 1.0);
  // Four GPUs, two slots, no spare: the hottest expert lies beside at least the lightest.
  CHECK(peak_bound(std::vector<double>{100, 5, 4, 3, 2, 2, 2, 1}, speeds, 2) ==
        Approx(101).epsilon(1e-6));
  // One spare slot of five: half of the hottest, alone.
  CHECK(peak_bound(std::vector<double>{100, 1, 1, 1}, std::vector<double>(5, 1.0), 1) ==
        Approx(50).epsilon(1e-6));
  CHECK(peak_bound(std::vector<double>(8, 3.0), speeds, 2) == Approx(6));
  CHECK(peak_bound(std::vector<double>(8, 0.0), speeds, 2) == 0);
}
