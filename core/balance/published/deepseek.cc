// `deepseek`: the published greedy algorithm, equal to it element by element. Heaviest first, each
// item goes to the lightest pack with room; sorting is stable and the first of equal packs wins.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <vector>

#include "core/balance/descending.h"
#include "core/balance/policies.h"
#include "core/balance/published/eplb_steps.h"

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
    order_descending(weights, order_);
    weight_.assign(static_cast<size_t>(packs), 0.0F);
    filled_.assign(static_cast<size_t>(packs), 0);
    for (const int32_t item : order_) {
      const auto lightest = std::min_element(weight_.begin(), weight_.end());
      const auto pack = static_cast<int32_t>(lightest - weight_.begin());
      packed[item] = {pack, filled_[pack]};
      *lightest += weights[item];
      if (++filled_[pack] == items_per_pack) *lightest = std::numeric_limits<float>::infinity();
    }
  }

 private:
  std::vector<int32_t> order_, filled_;
  std::vector<float> weight_;  // [packs] infinite: full
};

class DeepSeek final : public ScratchPolicy {
 public:
  explicit DeepSeek(const BalancerOptions& options) : options_(options) {}
  ScratchPlacement place(const Topology& topology, std::span<const double> loads,
                         std::span<const int32_t> gpus_down) const override {
    return place_in_steps(options_, topology, loads, gpus_down, GreedyPacker());
  }

 private:
  BalancerOptions options_;
};

}  // namespace

std::unique_ptr<ScratchPolicy> make_deepseek(const BalancerOptions& options) {
  return std::make_unique<DeepSeek>(options);
}

}  // namespace eplbd
