// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/joint.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "core/balance/duplicates.h"
#include "core/balance/policies.h"
#include "core/balance/random.h"
#include "core/balance/regions.h"
#include "core/balance/scratch/layer_fill.h"
#include "core/model/imbalance.h"

namespace eplbd {
namespace {

class Joint final : public ScratchPolicy {
 public:
  Joint(const BalancerOptions& options, const SearchConstants& constants,
        std::function<bool()> keep_searching)
      : options_(options), constants_(constants), keep_searching_(std::move(keep_searching)) {}

  ScratchPlacement place(const Topology& topology, std::span<const double> loads,
                         std::span<const int32_t> gpus_down) const override {
    const Regions regions = regions_of(options_, topology, gpus_down);
    LayerFiller filler(topology, regions, constants_);
    std::vector<int32_t> map(static_cast<size_t>(topology.layers) * topology.slots, kNoExpert);
    const auto slots_of = [&](int32_t layer) {
      return std::span(map).subspan(static_cast<size_t>(layer) * topology.slots,
                                    static_cast<size_t>(topology.slots));
    };
    std::vector<LayerPlan> plans(static_cast<size_t>(topology.layers));
    for (int32_t layer = 0; layer < topology.layers; ++layer) {
      Random random(options_.seed ^ (0x51ed270b9f652295 * static_cast<uint64_t>(layer + 1)));
      filler.fill(loads_of(topology, loads, layer), random, plans[layer]);
    }
    const bool far = filler.far();
    if (keep_searching_) search_on(topology, loads, filler, plans);
    for (int32_t layer = 0; layer < topology.layers; ++layer) {
      filler.write(plans[layer], slots_of(layer));
    }
    Placement placement(topology, std::move(map));
    if (far) placement = with_lucky_layers(topology, loads, gpus_down, placement);
    return {std::move(placement), regions.hierarchical};
  }

 private:
  static std::span<const double> loads_of(const Topology& topology, std::span<const double> loads,
                                          int32_t layer) {
    const auto experts = static_cast<size_t>(topology.logical_experts);
    return loads.subspan(static_cast<size_t>(layer) * experts, experts);
  }

  // A time budget: round after round, every layer that is off its bound.
  void search_on(const Topology& topology, std::span<const double> loads, LayerFiller& filler,
                 std::vector<LayerPlan>& plans) const {
    Random random(options_.seed);
    std::vector<int32_t> open(plans.size());
    std::iota(open.begin(), open.end(), 0);
    while (!open.empty()) {
      std::erase_if(open, [&](int32_t layer) {
        return filler.at_bound(loads_of(topology, loads, layer), plans[layer]);
      });
      for (const int32_t layer : open) {
        if (!keep_searching_()) return;
        filler.attempt(loads_of(topology, loads, layer), random, plans[layer]);
      }
    }
  }

  // Where the search stays far from its bound, `deepseek` may by chance have come closer.
  Placement with_lucky_layers(const Topology& topology, std::span<const double> loads,
                              std::span<const int32_t> gpus_down, const Placement& ours) const {
    const ScratchPlacement greedy = make_deepseek(options_)->place(topology, loads, gpus_down);
    const Placement theirs =
        repair_duplicates(topology, greedy.placement, loads, greedy.hierarchical);
    std::vector<int32_t> map = ours.map();
    const auto our_peaks = imbalance_of(topology, ours, loads).peaks;
    const auto their_peaks = imbalance_of(topology, theirs, loads).peaks;
    for (int32_t layer = 0; layer < topology.layers; ++layer) {
      if (their_peaks[layer] >= our_peaks[layer]) continue;
      const auto row = theirs.layer(layer);
      std::copy(row.begin(), row.end(),
                map.begin() + static_cast<ptrdiff_t>(layer) * topology.slots);
    }
    return {topology, std::move(map)};
  }

  BalancerOptions options_;
  SearchConstants constants_;
  std::function<bool()> keep_searching_;
};

}  // namespace

std::unique_ptr<ScratchPolicy> make_joint(const BalancerOptions& options,
                                          std::function<bool()> keep_searching) {
  return make_joint(options, {}, std::move(keep_searching));
}

std::unique_ptr<ScratchPolicy> make_joint(const BalancerOptions& options,
                                          const SearchConstants& constants,
                                          std::function<bool()> keep_searching) {
  return std::make_unique<Joint>(options, constants, std::move(keep_searching));
}

}  // namespace eplbd
