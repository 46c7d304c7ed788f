// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "core/balance/bound.h"
#include "core/balance/companion_bound.h"
#include "core/balance/group_packing.h"
#include "core/balance/regions.h"

namespace eplbd {
namespace {

// Bounds the peak of one layer after the other.
class LayerBounds {
 public:
  LayerBounds(const Topology& topology, const Regions& regions, bool thorough)
      : topology_(topology),
        regions_(regions),
        thorough_(thorough),
        packings_(regions.groups(), regions.size()) {
    for (const auto& gpus : regions.gpus) {
      std::vector<double> speeds;
      speeds.reserve(gpus.size());
      for (const int32_t gpu : gpus) speeds.push_back(topology.gpu_speed(gpu));
      all_speeds_.insert(all_speeds_.end(), speeds.begin(), speeds.end());
      region_speeds_.push_back(std::move(speeds));
    }
    alike_ = std::all_of(region_speeds_.begin(), region_speeds_.end(),
                         [&](const auto& speeds) { return speeds == region_speeds_.front(); });
  }

  double peak(std::span<const double> loads) {
    const double anywhere = bound_anywhere(loads);
    if (!regions_.hierarchical) return anywhere;
    if (alike_ && packings_.size() > 0 && regions_.groups() <= 64) {
      return std::max(anywhere, best_packing(loads));
    }
    return std::max(anywhere, heaviest_group(loads));
  }

  // Of a layer with this peak, what its mean of tokens / speed is at most: as many tokens as can be
  // on the slowest GPUs.
  double most_mean(double tokens, double peak) const {
    std::vector<double> slowest_first = all_speeds_;
    std::sort(slowest_first.begin(), slowest_first.end());
    double sum = 0;
    for (const double speed : slowest_first) {
      const double time = std::min(peak, tokens / speed);
      sum += time;
      tokens -= time * speed;
    }
    return sum / static_cast<double>(slowest_first.size());
  }

 private:
  double bound_anywhere(std::span<const double> loads) const {
    constexpr int32_t kFewSlots = 3;
    const double bound = region_bound(loads, all_speeds_);
    const int32_t slots = topology_.slots_per_gpu();
    const bool same_speed = std::adjacent_find(all_speeds_.begin(), all_speeds_.end(),
                                               std::not_equal_to<>()) == all_speeds_.end();
    if (!thorough_ || !same_speed || slots < 2 || slots > kFewSlots ||
        slots > topology_.logical_experts) {
      return bound;
    }
    const double speed = all_speeds_.front();
    const auto gpus = static_cast<int32_t>(all_speeds_.size());
    return companion_bound(loads, gpus, slots, bound * speed) / speed;
  }

  double region_bound(std::span<const double> weights, std::span<const double> speeds) const {
    if (topology_.slots_per_gpu() > static_cast<int32_t>(weights.size())) {
      // Experts twice on a GPU cannot be avoided, and the other arguments do not hold.
      return std::accumulate(weights.begin(), weights.end(), 0.0) /
             std::accumulate(speeds.begin(), speeds.end(), 0.0);
    }
    return peak_bound(weights, speeds, topology_.slots_per_gpu());
  }

  std::vector<double> group_tokens(std::span<const double> loads) const {
    std::vector<double> tokens(static_cast<size_t>(regions_.groups()));
    for (size_t expert = 0; expert < loads.size(); ++expert) {
      tokens[expert / regions_.experts_per_group] += loads[expert];
    }
    return tokens;
  }

  // Over all packings the least of what their hardest node allows; those whose mean alone is above
  // the best so far are not looked at.
  double best_packing(std::span<const double> loads) {
    node_bounds_.clear();
    std::vector<double> fullest;
    packings_.fullest_nodes(group_tokens(loads), fullest);
    const auto& speeds = region_speeds_.front();
    const double speed = std::accumulate(speeds.begin(), speeds.end(), 0.0);
    double best = std::numeric_limits<double>::infinity();
    while (true) {
      const auto next = std::min_element(fullest.begin(), fullest.end());
      if (*next / speed >= best) return best;
      const auto index = static_cast<int32_t>(next - fullest.begin());
      best = std::min(best, packing_bound(loads, packings_.packing(index)));
      *next = std::numeric_limits<double>::infinity();
    }
  }

  double packing_bound(std::span<const double> loads, std::span<const int32_t> node_of) {
    std::vector<uint64_t> groups_of(static_cast<size_t>(regions_.size()));
    for (size_t group = 0; group < node_of.size(); ++group) {
      groups_of[node_of[group]] |= uint64_t{1} << group;
    }
    double bound = 0;
    for (const uint64_t groups : groups_of) bound = std::max(bound, node_bound(loads, groups));
    return bound;
  }

  double node_bound(std::span<const double> loads, uint64_t groups) {
    const auto [known, unknown] = node_bounds_.try_emplace(groups, 0.0);
    if (unknown) {
      std::vector<double> weights;
      for (size_t expert = 0; expert < loads.size(); ++expert) {
        if (groups >> (expert / regions_.experts_per_group) & 1) weights.push_back(loads[expert]);
      }
      known->second = region_bound(weights, region_speeds_.front());
    }
    return known->second;
  }

  // Too many packings: the heaviest group beside the lightest others, on the fastest node.
  double heaviest_group(std::span<const double> loads) const {
    std::vector<double> tokens = group_tokens(loads);
    std::sort(tokens.begin(), tokens.end());
    const double node = std::accumulate(
        tokens.begin(), tokens.begin() + regions_.groups_per_region - 1, tokens.back());
    double fastest = 0;
    for (const auto& speeds : region_speeds_) {
      fastest = std::max(fastest, std::accumulate(speeds.begin(), speeds.end(), 0.0));
    }
    return node / fastest;
  }

  const Topology& topology_;
  const Regions& regions_;
  const bool thorough_;
  GroupPackings packings_;
  bool alike_ = true;
  std::vector<std::vector<double>> region_speeds_;
  std::vector<double> all_speeds_;
  std::map<uint64_t, double> node_bounds_;  // of this layer, by the groups' bits
};

}  // namespace

ImbalanceBound imbalance_bound(const BalancerOptions& options, const Topology& topology,
                               std::span<const double> loads, std::span<const int32_t> gpus_down,
                               bool thorough) {
  const Regions regions = regions_of(options, topology, gpus_down);
  LayerBounds layer_bounds(topology, regions, thorough);
  const auto experts = static_cast<size_t>(topology.logical_experts);
  const bool even_speeds =
      std::adjacent_find(topology.gpu_speeds.begin(), topology.gpu_speeds.end(),
                         std::not_equal_to<>()) == topology.gpu_speeds.end();
  ImbalanceBound bound;
  double peaks = 0;
  double means = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const auto row = loads.subspan(layer * experts, experts);
    const double tokens = std::accumulate(row.begin(), row.end(), 0.0);
    bound.layers.push_back(0);
    if (tokens <= 0) continue;
    const double peak = layer_bounds.peak(row);
    const double mean = layer_bounds.most_mean(tokens, peak);
    bound.layers.back() = std::max(1.0, peak / mean);
    least = std::min(least, bound.layers.back());
    peaks += peak;
    means += mean;
  }
  // With uneven speeds the mean is not fixed, and the ratio of the sums proves nothing.
  if (means > 0) bound.whole_model = even_speeds ? std::max(1.0, peaks / means) : least;
  return bound;
}

}  // namespace eplbd
