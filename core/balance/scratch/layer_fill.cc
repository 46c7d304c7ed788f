// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/layer_fill.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/balance/scratch/every_placement.h"

namespace eplbd {
namespace {

constexpr double kNear = 5e-5;  // a packing that could win no more than that is not tried

}  // namespace

LayerFiller::LayerFiller(const Topology& topology, const Regions& regions,
                         const SearchConstants& constants)
    : topology_(topology),
      regions_(regions),
      constants_(constants),
      packings_(regions.groups(), regions.size()),
      filler_(topology.slots_per_gpu(), constants) {
  for (const auto& gpus : regions.gpus) {
    std::vector<double> speeds;
    speeds.reserve(gpus.size());
    for (const int32_t gpu : gpus) speeds.push_back(topology.gpu_speed(gpu));
    region_speed_.push_back(std::accumulate(speeds.begin(), speeds.end(), 0.0));
    speeds_.push_back(std::move(speeds));
  }
  alike_ = std::all_of(speeds_.begin(), speeds_.end(),
                       [&](const auto& speeds) { return speeds == speeds_.front(); });
  const bool few =
      placements_are_few(regions.experts_per_region(), static_cast<int32_t>(speeds_.front().size()),
                         topology.slots_per_gpu());
  most_packings_ = few ? packings_.size() : std::min(constants.most_packings, packings_.size());
}

void LayerFiller::fill(std::span<const double> loads, Random& random, LayerPlan& plan) {
  group_tokens_.clear();
  for (auto group = loads.begin(); group != loads.end(); group += regions_.experts_per_group) {
    group_tokens_.push_back(std::accumulate(group, group + regions_.experts_per_group, 0.0));
  }
  if (!alike_ || packings_.size() == 0) {
    pack_by_search(random);
    try_packing(loads, node_of_, random, plan);
    return;
  }
  packings_.fullest_nodes(group_tokens_, fullest_);
  for (int32_t tried = 0; tried < most_packings_; ++tried) {
    const auto next = std::min_element(fullest_.begin(), fullest_.end());
    if (*next / region_speed_.front() * (1 + kNear) >= plan.peak) return;
    const auto node_of = packings_.packing(static_cast<int32_t>(next - fullest_.begin()));
    try_packing(loads, node_of, random, plan);
    *next = std::numeric_limits<double>::infinity();
  }
}

// Groups are items without replicas, nodes are GPUs as fast as theirs together.
void LayerFiller::pack_by_search(Random& random) {
  RegionFiller filler(regions_.groups_per_region, constants_);
  filler.take(group_tokens_, region_speed_);
  RegionPlan plan;
  filler.fill(0, plan, random);
  node_of_.resize(group_tokens_.size());
  for (size_t place = 0; place < group_tokens_.size(); ++place) {
    node_of_[plan.expert_at[place]] = static_cast<int32_t>(place) / regions_.groups_per_region;
  }
}

// Fills the regions, fullest first; keeps the outcome when its peak is below the best.
void LayerFiller::try_packing(std::span<const double> loads, std::span<const int32_t> node_of,
                              Random& random, LayerPlan& best) {
  LayerPlan& plan = trial_;
  plan.regions.resize(static_cast<size_t>(regions_.size()));
  for (RegionPlan& region : plan.regions) region.experts.clear();
  mean_.assign(plan.regions.size(), 0.0);
  for (size_t group = 0; group < node_of.size(); ++group) {
    const int32_t region = node_of[group];
    mean_[region] += group_tokens_[group] / region_speed_[region];
    for (int32_t i = 0; i < regions_.experts_per_group; ++i) {
      plan.regions[region].experts.push_back(
          static_cast<int32_t>(group) * regions_.experts_per_group + i);
    }
  }
  order_.resize(plan.regions.size());
  std::iota(order_.begin(), order_.end(), 0);
  std::sort(order_.begin(), order_.end(),
            [&](int32_t a, int32_t b) { return mean_[a] > mean_[b]; });
  plan.peak = mean_[order_.front()];
  for (const int32_t region : order_) {
    take(loads, region, plan.regions[region]);
    filler_.fill(plan.peak, plan.regions[region], random);
    far_ = far_ || filler_.far(plan.regions[region]);
    plan.peak = std::max(plan.peak, plan.regions[region].peak);
    if (plan.peak >= best.peak) return;
  }
  std::swap(best, plan);
}

void LayerFiller::take(std::span<const double> loads, size_t region, const RegionPlan& plan) {
  weights_.clear();
  for (const int32_t expert : plan.experts) weights_.push_back(loads[expert]);
  filler_.take(weights_, speeds_[region]);
}

// The region that decides the layer's peak.
size_t LayerFiller::take_fullest(std::span<const double> loads, const LayerPlan& plan) {
  const auto fullest =
      std::max_element(plan.regions.begin(), plan.regions.end(),
                       [](const RegionPlan& a, const RegionPlan& b) { return a.peak < b.peak; });
  const auto region = static_cast<size_t>(fullest - plan.regions.begin());
  take(loads, region, *fullest);
  return region;
}

bool LayerFiller::at_bound(std::span<const double> loads, const LayerPlan& plan) {
  return filler_.at_bound(plan.regions[take_fullest(loads, plan)]);
}

void LayerFiller::attempt(std::span<const double> loads, Random& random, LayerPlan& plan) {
  constexpr int32_t kAttempts = 4;
  filler_.attempt(kAttempts, plan.regions[take_fullest(loads, plan)], random);
}

void LayerFiller::write(const LayerPlan& plan, std::span<int32_t> slot_to_expert) const {
  const int32_t slots_per_gpu = topology_.slots_per_gpu();
  for (size_t region = 0; region < plan.regions.size(); ++region) {
    const auto& [experts, expert_at, peak] = plan.regions[region];
    auto expert = expert_at.begin();
    for (const int32_t gpu : regions_.gpus[region]) {
      for (int32_t i = 0; i < slots_per_gpu; ++i) {
        slot_to_expert[gpu * slots_per_gpu + i] = experts[*expert++];
      }
    }
  }
}

}  // namespace eplbd
