// `evolved`: the EPLB program that an evolutionary search found for the ADRS benchmark, in full.
// It differs from the published algorithm in the packing: greedy from several starts, then the
// fullest pack is repartitioned with others. Its random draws are ours, reproducible from a seed.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "core/balance/policies.h"
#include "core/balance/published/eplb_steps.h"
#include "core/balance/published/repartition.h"
#include "core/balance/random.h"

namespace eplbd {
namespace {

constexpr int kStarts = 3;
constexpr int kRefinements = 20;
constexpr int kThreeWayDraws = 10;
constexpr double kEven = 1e-6;

struct Packs {
  std::vector<std::vector<int32_t>> items;
  std::vector<double> weights;

  double spread() const {
    const auto [least, most] = std::minmax_element(weights.begin(), weights.end());
    return *most - *least;
  }
};

// Packs of one row of items. The weights are float32 of origin, sums are double, as in the
// original.
class RowPacker {
 public:
  RowPacker(std::span<const float> weights, int32_t packs, Random& random)
      : weights_(weights),
        packs_(packs),
        items_per_pack_(static_cast<int32_t>(weights.size()) / packs),
        random_(random) {}

  Packs pack() {
    Packs best;
    double best_spread = std::numeric_limits<double>::infinity();
    for (int start = 0; start < kStarts && best_spread >= kEven; ++start) {
      Packs packs = fill_greedily(start > 0);
      for (int i = 0; i < kRefinements && refine(packs); ++i) {
      }
      if (packs.spread() < best_spread) {
        best_spread = packs.spread();
        best = std::move(packs);
      }
    }
    return best;
  }

 private:
  Packs fill_greedily(bool noisy) {
    std::vector<float> keys(weights_.begin(), weights_.end());
    if (noisy) {
      for (float& key : keys) key *= static_cast<float>(random_.between(0.9, 1.1));
    }
    std::vector<int32_t> order(weights_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return keys[a] > keys[b]; });
    Packs packs;
    packs.items.resize(static_cast<size_t>(packs_));
    packs.weights.resize(static_cast<size_t>(packs_));
    for (const int32_t item : order) add_to_lightest(packs, item, weights_[item]);
    return packs;
  }

  // Among the packs with room, the first of the lightest.
  void add_to_lightest(Packs& packs, int32_t item, double weight) const {
    size_t lightest = packs.items.size();
    for (size_t p = 0; p < packs.items.size(); ++p) {
      if (static_cast<int32_t>(packs.items[p].size()) == items_per_pack_) continue;
      if (lightest == packs.items.size() || packs.weights[p] < packs.weights[lightest]) {
        lightest = p;
      }
    }
    packs.items[lightest].push_back(item);
    packs.weights[lightest] += weight;
  }

  bool refine(Packs& packs) {
    std::vector<int32_t> heaviest_first(static_cast<size_t>(packs_));
    std::iota(heaviest_first.begin(), heaviest_first.end(), 0);
    std::stable_sort(heaviest_first.begin(), heaviest_first.end(),
                     [&](int32_t a, int32_t b) { return packs.weights[a] > packs.weights[b]; });
    const int32_t fullest = heaviest_first.front();
    for (size_t i = heaviest_first.size() - 1; i > 0; --i) {
      if (repartition_pair(packs, fullest, heaviest_first[i])) return true;
    }
    return packs_ >= 3 && repartition_three(packs, heaviest_first);
  }

  bool repartition_pair(Packs& packs, int32_t fullest, int32_t other) {
    if (packs.weights[fullest] - packs.weights[other] < kEven) return false;
    std::vector<int32_t> pool = packs.items[fullest];
    pool.insert(pool.end(), packs.items[other].begin(), packs.items[other].end());
    std::vector<double> pool_weights;
    pool_weights.reserve(pool.size());
    for (const int32_t item : pool) pool_weights.push_back(weights_[item]);
    std::vector<int32_t> first_items;
    std::vector<bool> taken(pool.size());
    for (const int32_t i : split_in_halves(pool_weights, random_)) {
      first_items.push_back(pool[i]);
      taken[i] = true;
    }
    std::vector<int32_t> second_items;
    for (size_t i = 0; i < pool.size(); ++i) {
      if (!taken[i]) second_items.push_back(pool[i]);
    }
    const double first = weight_of(first_items);
    const double second = weight_of(second_items);
    if (std::max(first, second) >= packs.weights[fullest] - kEven) return false;
    packs.items[fullest] = std::move(first_items);
    packs.items[other] = std::move(second_items);
    packs.weights[fullest] = first;
    packs.weights[other] = second;
    return true;
  }

  // When no pair helps: the fullest, the lightest and a random third, greedily with random noise.
  bool repartition_three(Packs& packs, std::span<const int32_t> heaviest_first) {
    std::vector<int32_t> others;
    for (int32_t pack = 0; pack < packs_; ++pack) {
      if (pack != heaviest_first.front() && pack != heaviest_first.back()) others.push_back(pack);
    }
    const int32_t three[] = {heaviest_first.front(), heaviest_first.back(),
                             others[random_.below(static_cast<int32_t>(others.size()))]};
    std::vector<int32_t> pool;
    double most = 0;
    for (const int32_t pack : three) {
      pool.insert(pool.end(), packs.items[pack].begin(), packs.items[pack].end());
      most = std::max(most, packs.weights[pack]);
    }
    Packs best;
    for (int draw = 0; draw < kThreeWayDraws; ++draw) {
      Packs drawn = fill_three(pool);
      const double drawn_most = *std::max_element(drawn.weights.begin(), drawn.weights.end());
      if (drawn_most < most - kEven) {
        most = drawn_most;
        best = std::move(drawn);
      }
    }
    if (best.items.empty()) return false;
    for (size_t i = 0; i < 3; ++i) {
      packs.weights[three[i]] = weight_of(best.items[i]);
      packs.items[three[i]] = std::move(best.items[i]);
    }
    return true;
  }

  Packs fill_three(std::span<const int32_t> pool) {
    std::vector<std::pair<double, int32_t>> keyed;
    for (const int32_t item : pool) {
      keyed.emplace_back(weights_[item] * random_.between(0.9, 1.1), item);
    }
    std::stable_sort(keyed.begin(), keyed.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    Packs drawn;
    drawn.items.resize(3);
    drawn.weights.resize(3);
    for (const auto& [key, item] : keyed) add_to_lightest(drawn, item, weights_[item]);
    return drawn;
  }

  double weight_of(std::span<const int32_t> items) const {
    double weight = 0;
    for (const int32_t item : items) weight += weights_[item];
    return weight;
  }

  std::span<const float> weights_;
  int32_t packs_;
  int32_t items_per_pack_;
  Random& random_;
};

class Evolved final : public ScratchPolicy {
 public:
  explicit Evolved(const BalancerOptions& options) : options_(options) {}

  ScratchPlacement place(const Topology& topology, std::span<const double> loads,
                         std::span<const int32_t> gpus_down) const override {
    Random random(options_.seed);
    ScratchPlacement placed =
        place_in_steps(options_, topology, loads, gpus_down,
                       [&](std::span<const float> weights, int32_t packs,
                           std::span<Packed> packed) { pack(weights, packs, packed, random); });
    // As wide as an expert could need: all redundant slots and its own.
    placed.published->table_width = topology.slots - topology.logical_experts + 1;
    return placed;
  }

 private:
  static void pack(std::span<const float> weights, int32_t packs, std::span<Packed> packed,
                   Random& random) {
    const auto items = static_cast<int32_t>(weights.size());
    if (items == packs) {  // as the original: item i is pack i
      for (int32_t item = 0; item < items; ++item) packed[item] = {item, 0};
      return;
    }
    const Packs best = RowPacker(weights, packs, random).pack();
    for (int32_t p = 0; p < packs; ++p) {
      for (size_t rank = 0; rank < best.items[p].size(); ++rank) {
        packed[best.items[p][rank]] = {p, static_cast<int32_t>(rank)};
      }
    }
  }

  BalancerOptions options_;
};

}  // namespace

std::unique_ptr<ScratchPolicy> make_evolved(const BalancerOptions& options) {
  return std::make_unique<Evolved>(options);
}

}  // namespace eplbd
