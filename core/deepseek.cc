// `deepseek`: the published greedy algorithm, equal to it element by element. Heaviest first, each
// item goes to the lightest pack with room; sorting is stable and the first of equal packs wins.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "core/eplb_steps.h"
#include "core/policies.h"

namespace eplbd {
namespace {

class GreedyPacker {
 public:
  void operator()(std::span<const float> weights, int32_t packs, std::span<Packed> packed) {
    const auto items = static_cast<int32_t>(weights.size());
    const int32_t items_per_pack = items / packs;
    if (items_per_pack == 1) {  // as published: no sorting, item i is pack i
      for (int32_t item = 0; item < items; ++item) packed[item] = {item, 0};
      return;
    }
    order_.resize(weights.size());
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int32_t a, int32_t b) { return weights[a] > weights[b]; });
    // Packs with room as a heap; in ascending order of pack it is one from the start.
    room_.clear();
    for (int32_t pack = 0; pack < packs; ++pack) room_.emplace_back(0.0F, pack);
    filled_.assign(static_cast<size_t>(packs), 0);
    for (const int32_t item : order_) {
      std::pop_heap(room_.begin(), room_.end(), std::greater<>());
      auto& [weight, pack] = room_.back();
      packed[item] = {pack, filled_[pack]};
      weight += weights[item];
      if (++filled_[pack] == items_per_pack) {
        room_.pop_back();
      } else {
        std::push_heap(room_.begin(), room_.end(), std::greater<>());
      }
    }
  }

 private:
  std::vector<int32_t> order_, filled_;
  std::vector<std::pair<float, int32_t>> room_;  // (weight, pack)
};

class DeepSeek : public Balancer {
 public:
  explicit DeepSeek(const BalancerOptions& options) : options_(options) {}
  BalanceResult place(const BalanceRequest& request) const override {
    return place_in_steps(options_, request, GreedyPacker());
  }

 private:
  BalancerOptions options_;
};

}  // namespace

std::unique_ptr<Balancer> make_deepseek(const BalancerOptions& options) {
  return std::make_unique<DeepSeek>(options);
}

}  // namespace eplbd
