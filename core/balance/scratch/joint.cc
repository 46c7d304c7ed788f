// `joint`: our policy from scratch. For each layer: groups to nodes, the best packings first; in
// each node the search engine, until the peak is at what the fullest node allows.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "core/balance/duplicates.h"
#include "core/balance/group_packing.h"
#include "core/balance/policies.h"
#include "core/balance/random.h"
#include "core/balance/regions.h"
#include "core/balance/scratch/layer_search.h"
#include "core/balance/scratch/region_fill.h"
#include "core/model/imbalance.h"

namespace eplbd {
namespace {

constexpr double kNear = 5e-5;
constexpr int32_t kMostPackingsTried = 4;
constexpr int32_t kAttemptsPerQuestion = 4;
constexpr int32_t kQuestionsInARow = 2;

// One layer's placement as it is found, region by region.
struct LayerPlan {
  std::vector<RegionPlan> regions;
  double peak = std::numeric_limits<double>::infinity();
};

class JointPlacer {
 public:
  JointPlacer(const BalancerOptions& options, const Topology& topology,
              std::span<const double> loads, std::span<const int32_t> gpus_down,
              const std::function<bool()>& keep_searching)
      : topology_(topology),
        loads_(loads),
        keep_searching_(keep_searching),
        regions_(regions_of(options, topology, gpus_down)),
        packings_(regions_.groups(), regions_.size()),
        seed_(options.seed),
        filler_(topology_.slots_per_gpu()) {
    for (const auto& gpus : regions_.gpus) {
      std::vector<double> speeds;
      for (const int32_t gpu : gpus) speeds.push_back(topology_.gpu_speed(gpu));
      region_speed_.push_back(std::accumulate(speeds.begin(), speeds.end(), 0.0));
      speeds_.push_back(std::move(speeds));
    }
    alike_ = std::all_of(speeds_.begin(), speeds_.end(),
                         [&](const auto& speeds) { return speeds == speeds_.front(); });
  }

  // After place(): some region stayed far from its bound.
  bool far() const { return far_; }

  bool hierarchical() const { return regions_.hierarchical; }

  std::vector<int32_t> place() {  // [layers, slots]
    std::vector<int32_t> map(static_cast<size_t>(topology_.layers) * topology_.slots, kNoExpert);
    std::vector<LayerPlan> plans(keep_searching_ ? topology_.layers : 1);
    for (int32_t layer = 0; layer < topology_.layers; ++layer) {
      LayerPlan& plan = plans[keep_searching_ ? layer : 0];
      plan.peak = std::numeric_limits<double>::infinity();
      place_layer(layer, plan);
      write(layer, plan, map);
    }
    if (keep_searching_) search_on(plans, map);
    return map;
  }

 private:
  std::span<const double> loads(int32_t layer) const {
    const auto experts = static_cast<size_t>(topology_.logical_experts);
    return loads_.subspan(layer * experts, experts);
  }

  void place_layer(int32_t layer, LayerPlan& best) {
    Random random(seed_ ^ (0x51ed270b9f652295 * static_cast<uint64_t>(layer + 1)));
    group_tokens_.assign(static_cast<size_t>(regions_.groups()), 0.0);
    const auto row = loads(layer);
    for (size_t expert = 0; expert < row.size(); ++expert) {
      group_tokens_[expert / regions_.experts_per_group] += row[expert];
    }
    if (!alike_ || packings_.size() == 0) {
      pack_by_search(random);
      try_packing(row, node_of_, best, random);
      return;
    }
    packings_.fullest_nodes(group_tokens_, fullest_);
    for (int32_t tried = 0; tried < std::min(kMostPackingsTried, packings_.size()); ++tried) {
      const auto next = std::min_element(fullest_.begin(), fullest_.end());
      if (*next / region_speed_.front() * (1 + kNear) >= best.peak) return;
      const auto node_of = packings_.packing(static_cast<int32_t>(next - fullest_.begin()));
      try_packing(row, node_of, best, random);
      *next = std::numeric_limits<double>::infinity();
    }
  }

  // Groups are items without replicas, nodes are GPUs as fast as theirs together.
  void pack_by_search(Random& random) {
    constexpr int kAttempts = 50;
    LayerSearch search;
    search.reset(group_tokens_, region_speed_, regions_.groups_per_region);
    search.construct(0, 0);
    search.descend(0);
    for (int i = 0; i < kAttempts; ++i) search.attempt(0, random);
    node_of_.resize(group_tokens_.size());
    for (size_t place = 0; place < group_tokens_.size(); ++place) {
      node_of_[search.expert_at()[place]] =
          static_cast<int32_t>(place) / regions_.groups_per_region;
    }
  }

  // Fills the regions, fullest first; keeps the outcome when its peak is below the best.
  void try_packing(std::span<const double> row, std::span<const int32_t> node_of, LayerPlan& best,
                   Random& random) {
    LayerPlan& plan = trial_;
    plan.regions.resize(static_cast<size_t>(regions_.size()));
    for (RegionPlan& region : plan.regions) region.experts.clear();
    std::vector<double> mean(plan.regions.size());
    for (size_t group = 0; group < node_of.size(); ++group) {
      const int32_t region = node_of[group];
      mean[region] += group_tokens_[group] / region_speed_[region];
      for (int32_t i = 0; i < regions_.experts_per_group; ++i) {
        plan.regions[region].experts.push_back(
            static_cast<int32_t>(group) * regions_.experts_per_group + i);
      }
    }
    std::vector<int32_t> order(plan.regions.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return mean[a] > mean[b]; });
    plan.peak = mean[order.front()];
    for (const int32_t region : order) {
      take(row, region, plan.regions[region]);
      filler_.fill(plan.peak, plan.regions[region], random);
      far_ = far_ || filler_.far(plan.regions[region]);
      plan.peak = std::max(plan.peak, plan.regions[region].peak);
      if (plan.peak >= best.peak) return;
    }
    std::swap(best, plan);
  }

  void take(std::span<const double> row, size_t region, const RegionPlan& plan) {
    weights_.clear();
    for (const int32_t expert : plan.experts) weights_.push_back(row[expert]);
    filler_.take(weights_, speeds_[region]);
  }

  // A time budget: round after round, the fullest region of every layer that is off its bound.
  void search_on(std::vector<LayerPlan>& plans, std::vector<int32_t>& map) {
    Random random(seed_);
    std::vector<int32_t> open(plans.size());
    std::iota(open.begin(), open.end(), 0);
    while (!open.empty()) {
      std::erase_if(open, [&](int32_t layer) { return at_bound(layer, plans[layer]); });
      for (const int32_t layer : open) {
        if (!improve(layer, plans[layer], random)) return;
        write(layer, plans[layer], map);
      }
    }
  }

  bool at_bound(int32_t layer, const LayerPlan& plan) {
    const RegionPlan& region = plan.regions[take_fullest(layer, plan)];
    return filler_.at(filler_.bound(), region);
  }

  // The region that decides the layer's peak.
  size_t take_fullest(int32_t layer, const LayerPlan& plan) {
    const auto fullest =
        std::max_element(plan.regions.begin(), plan.regions.end(),
                         [](const RegionPlan& a, const RegionPlan& b) { return a.peak < b.peak; });
    const auto region = static_cast<size_t>(fullest - plan.regions.begin());
    take(loads(layer), region, *fullest);
    return region;
  }

  // False: time is up.
  bool improve(int32_t layer, LayerPlan& plan, Random& random) {
    RegionPlan& region = plan.regions[take_fullest(layer, plan)];
    const double bound = filler_.bound();
    for (int32_t i = 0; i < kQuestionsInARow; ++i) {
      if (!keep_searching_()) return false;
      filler_.attempt(bound, kAttemptsPerQuestion, region, random);
    }
    return true;
  }

  void write(int32_t layer, const LayerPlan& plan, std::vector<int32_t>& map) const {
    const int32_t slots_per_gpu = topology_.slots_per_gpu();
    int32_t* row = map.data() + static_cast<size_t>(layer) * topology_.slots;
    for (size_t region = 0; region < plan.regions.size(); ++region) {
      const auto& [experts, expert_at, peak] = plan.regions[region];
      const auto& gpus = regions_.gpus[region];
      for (size_t i = 0; i < expert_at.size(); ++i) {
        row[gpus[i / slots_per_gpu] * slots_per_gpu + static_cast<int32_t>(i % slots_per_gpu)] =
            experts[expert_at[i]];
      }
    }
  }

  const Topology& topology_;
  const std::span<const double> loads_;
  const std::function<bool()>& keep_searching_;
  const Regions regions_;
  GroupPackings packings_;
  const uint64_t seed_;
  bool far_ = false;
  bool alike_ = true;                        // the regions: as many GPUs, as fast
  std::vector<std::vector<double>> speeds_;  // [regions][gpus]
  std::vector<double> region_speed_;         // [regions] their sum
  RegionFiller filler_;
  LayerPlan trial_;
  std::vector<double> group_tokens_, fullest_, weights_;
  std::vector<int32_t> node_of_;
};

class Joint final : public ScratchPolicy {
 public:
  Joint(const BalancerOptions& options, std::function<bool()> keep_searching)
      : options_(options), keep_searching_(std::move(keep_searching)) {}

  ScratchPlacement place(const Topology& topology, std::span<const double> loads,
                         std::span<const int32_t> gpus_down) const override {
    JointPlacer placer(options_, topology, loads, gpus_down, keep_searching_);
    Placement placement(topology, placer.place());
    if (placer.far()) placement = with_lucky_layers(topology, loads, gpus_down, placement);
    return {std::move(placement), placer.hierarchical()};
  }

 private:
  // Where the search stays far from its bound, `deepseek` may by chance have come closer.
  Placement with_lucky_layers(const Topology& topology, std::span<const double> loads,
                              std::span<const int32_t> gpus_down, const Placement& ours) const {
    const auto peaks = [&](const Placement& placement) {
      const auto per_gpu = gpu_loads(topology, placement, loads);
      std::vector<double> most;
      for (auto row = per_gpu.begin(); row != per_gpu.end(); row += topology.gpus) {
        most.push_back(*std::max_element(row, row + topology.gpus));
      }
      return most;
    };
    const ScratchPlacement greedy = make_deepseek(options_)->place(topology, loads, gpus_down);
    const Placement theirs =
        repair_duplicates(topology, greedy.placement, loads, greedy.hierarchical);
    std::vector<int32_t> map = ours.map();
    const auto our_peak = peaks(ours);
    const auto their_peak = peaks(theirs);
    for (int32_t layer = 0; layer < topology.layers; ++layer) {
      if (their_peak[layer] >= our_peak[layer]) continue;
      const auto row = theirs.layer(layer);
      std::copy(row.begin(), row.end(),
                map.begin() + static_cast<ptrdiff_t>(layer) * topology.slots);
    }
    return {topology, std::move(map)};
  }

  BalancerOptions options_;
  std::function<bool()> keep_searching_;
};

}  // namespace

std::unique_ptr<ScratchPolicy> make_joint(const BalancerOptions& options,
                                          std::function<bool()> keep_searching) {
  return std::make_unique<Joint>(options, std::move(keep_searching));
}

}  // namespace eplbd
