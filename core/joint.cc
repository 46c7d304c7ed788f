// `joint`: our policy from scratch. For each layer: groups to nodes, the best packings first; in
// each node the search engine, until the peak is at what the fullest node allows.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/bound.h"
#include "core/group_packing.h"
#include "core/layer_search.h"
#include "core/policies.h"
#include "core/random.h"
#include "core/regions.h"

namespace eplbd {
namespace {

// Attempts at a region that is off its bound, before it is left: fewer the larger it is.
constexpr int32_t kSlotAttempts = 24000;
constexpr int32_t kLeastAttempts = 8;
constexpr int32_t kMostAttempts = 1600;
constexpr int32_t kNearbyAttempts = 100;
constexpr int32_t kLastAttempts = 6;
constexpr double kNear = 5e-5;
constexpr int32_t kFewSlots = 64;
constexpr int32_t kScatteredSlots = 24;
constexpr int32_t kRounds = 8;
constexpr int32_t kFewRounds = 3;
constexpr int32_t kMostPackingsTried = 4;
constexpr int32_t kAttemptsPerQuestion = 4;

// So near to its bound a region counts as there. Fewer GPUs, and more slots on each, can be evened
// out finer.
double tolerance(size_t gpus, int32_t slots_per_gpu) {
  return std::min(5.5e-6 * std::pow(gpus / 8.0, 2) * std::pow(9.0 / slots_per_gpu, 5), 5e-4);
}

// So far from it a region is worth more than a few last attempts.
double off_bound(double tolerated) {
  return 1 + std::max(tolerated, std::min(8 * tolerated, 1e-3));
}

// One layer's placement as it is found, region by region.
struct RegionPlan {
  std::vector<int32_t> experts;    // the layer's numbers of them
  std::vector<int32_t> expert_at;  // [gpus, slots_per_gpu] index in `experts`
  double peak = 0;
};

struct LayerPlan {
  std::vector<RegionPlan> regions;
  double peak = std::numeric_limits<double>::infinity();
};

class JointPlacer {
 public:
  JointPlacer(const BalancerOptions& options, const BalanceRequest& request)
      : request_(request),
        topology_(request.topology),
        regions_(regions_of(options, request)),
        packings_(regions_.groups(), regions_.size()),
        seed_(options.seed) {
    for (const auto& gpus : regions_.gpus) {
      std::vector<double> speeds;
      for (const int32_t gpu : gpus) speeds.push_back(topology_.gpu_speed(gpu));
      region_speed_.push_back(std::accumulate(speeds.begin(), speeds.end(), 0.0));
      speeds_.push_back(std::move(speeds));
    }
    alike_ = std::all_of(speeds_.begin(), speeds_.end(),
                         [&](const auto& speeds) { return speeds == speeds_.front(); });
  }

  BalanceResult place() {
    BalanceResult result;
    result.hierarchical = regions_.hierarchical;
    result.slot_to_expert.assign(static_cast<size_t>(topology_.layers) * topology_.slots,
                                 kNoExpert);
    std::vector<LayerPlan> plans(request_.keep_searching ? topology_.layers : 1);
    for (int32_t layer = 0; layer < topology_.layers; ++layer) {
      LayerPlan& plan = plans[request_.keep_searching ? layer : 0];
      plan.peak = std::numeric_limits<double>::infinity();
      place_layer(layer, plan);
      write(layer, plan, result.slot_to_expert);
    }
    if (request_.keep_searching) search_on(plans, result.slot_to_expert);
    return result;
  }

 private:
  std::span<const double> loads(int32_t layer) const {
    const auto experts = static_cast<size_t>(topology_.logical_experts);
    return request_.loads.subspan(layer * experts, experts);
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
    search_.reset(group_tokens_, region_speed_, regions_.groups_per_region);
    search_.construct();
    search_.descend(0);
    for (int i = 0; i < kAttempts; ++i) search_.attempt(0, random);
    node_of_.resize(group_tokens_.size());
    for (size_t place = 0; place < group_tokens_.size(); ++place) {
      node_of_[search_.expert_at()[place]] =
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
      fill(row, region, plan.peak, plan.regions[region], random);
      plan.peak = std::max(plan.peak, plan.regions[region].peak);
      if (plan.peak >= best.peak) return;
    }
    std::swap(best, plan);
  }

  void fill(std::span<const double> row, int32_t region, double enough, RegionPlan& plan,
            Random& random) {
    const auto& speeds = speeds_[region];
    weights_.clear();
    for (const int32_t expert : plan.experts) weights_.push_back(row[expert]);
    if (topology_.slots_per_gpu() > static_cast<int32_t>(weights_.size())) {
      return fill_with_copies(speeds, plan);
    }
    search_.reset(weights_, speeds, topology_.slots_per_gpu());
    search_.construct();
    plan.peak = std::numeric_limits<double>::infinity();
    const double tolerated = tolerance(speeds.size(), topology_.slots_per_gpu());
    if (search_.peak() <= enough * (1 + tolerated) ||
        even_out(speeds.size(), enough, tolerated, random)) {
      return keep(plan);
    }
    search_.descend(enough * (1 + tolerated));
    if (even_out(speeds.size(), enough, tolerated, random)) return keep(plan);
    keep(plan);
    if (plan.peak > enough * off_bound(tolerated)) {
      enough = std::max(enough, peak_bound(weights_, speeds, topology_.slots_per_gpu()));
      search_more(enough, tolerated, plan, random);
    }
    for (int32_t i = 0; i < kLastAttempts && search_.peak() > enough * (1 + tolerated); ++i) {
      search_.attempt_nearby(enough * (1 + tolerated), random);
    }
    keep(plan);
  }

  // Exactly, where there are few GPUs; else single steps even out as well. Twice as far from the
  // bound is five times as easy.
  bool even_out(size_t gpus, double enough, double tolerated, Random& random) {
    constexpr size_t kFewGpus = 16;
    if (gpus > kFewGpus) return false;
    const double whole = quantum(enough * tolerated);
    if (search_.even_out(enough * (1 + tolerated), whole, random)) return true;
    for (double more = 2 * tolerated; more < kNear / 2; more *= 2) {
      if (search_.even_out(enough * (1 + more), whole, random)) return true;
    }
    return false;
  }

  // What all weights are multiples of; 0 where that is too little to matter.
  double quantum(double least) const {
    uint64_t common = 0;
    for (const double weight : weights_) {
      if (weight != std::floor(weight) || weight >= 0x1p63) return 0;
      common = std::gcd(common, static_cast<uint64_t>(weight));
      if (common > 0 && static_cast<double>(common) < least) return 0;
    }
    return static_cast<double>(common);
  }

  void keep(RegionPlan& plan) const {
    if (search_.peak() >= plan.peak) return;
    plan.expert_at.assign(search_.expert_at().begin(), search_.expert_at().end());
    plan.peak = search_.peak();
  }

  // Far from the bound by large steps, near it by small ones. Where few slots make a trap of many a
  // local optimum, several times, from the start or from anywhere.
  void search_more(double enough, double tolerated, RegionPlan& plan, Random& random) {
    const auto slots = static_cast<int32_t>(search_.expert_at().size());
    const int32_t attempts = std::clamp(kSlotAttempts / slots, kLeastAttempts, kMostAttempts);
    const int32_t rounds = slots <= kScatteredSlots ? kRounds : slots <= kFewSlots ? kFewRounds : 1;
    for (int32_t round = 0; round < rounds && plan.peak > enough * (1 + tolerated); ++round) {
      if (round > 0) slots <= kScatteredSlots ? search_.scatter(random) : search_.construct();
      const double near = enough * (1 + std::max(tolerated, kNear));
      for (int32_t i = 0; i < attempts / rounds && search_.peak() > near; ++i) {
        search_.attempt(enough * (1 + tolerated), random);
      }
      const int32_t nearby = std::min(attempts / rounds, kNearbyAttempts);
      for (int32_t i = 0; i < nearby && search_.peak() > enough * off_bound(tolerated); ++i) {
        search_.attempt_nearby(enough * (1 + tolerated), random);
      }
      keep(plan);
    }
    search_.load(plan.expert_at);
  }

  // More slots on a GPU than experts that may lie there: every GPU holds them all, the first ones
  // more than once, and all GPUs carry alike.
  void fill_with_copies(std::span<const double> speeds, RegionPlan& plan) const {
    const auto experts = static_cast<int32_t>(plan.experts.size());
    plan.expert_at.clear();
    for (size_t gpu = 0; gpu < speeds.size(); ++gpu) {
      for (int32_t slot = 0; slot < topology_.slots_per_gpu(); ++slot) {
        plan.expert_at.push_back(slot % experts);
      }
    }
    const double tokens = std::accumulate(weights_.begin(), weights_.end(), 0.0);
    plan.peak = tokens / static_cast<double>(speeds.size()) /
                *std::min_element(speeds.begin(), speeds.end());
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
    const auto [region, enough] = fullest_region(layer, plan);
    return plan.regions[region].peak <=
           enough * (1 + tolerance(speeds_[region].size(), topology_.slots_per_gpu()));
  }

  // The region that decides the layer's peak, and a bound of it.
  std::pair<size_t, double> fullest_region(int32_t layer, const LayerPlan& plan) {
    const auto fullest =
        std::max_element(plan.regions.begin(), plan.regions.end(),
                         [](const RegionPlan& a, const RegionPlan& b) { return a.peak < b.peak; });
    const auto region = static_cast<size_t>(fullest - plan.regions.begin());
    weights_.clear();
    for (const int32_t expert : fullest->experts) weights_.push_back(loads(layer)[expert]);
    if (topology_.slots_per_gpu() > static_cast<int32_t>(weights_.size())) {
      return {region, fullest->peak};
    }
    return {region, peak_bound(weights_, speeds_[region], topology_.slots_per_gpu())};
  }

  // False: time is up.
  bool improve(int32_t layer, LayerPlan& plan, Random& random) {
    const auto [index, enough] = fullest_region(layer, plan);
    RegionPlan& region = plan.regions[index];
    search_.reset(weights_, speeds_[index], topology_.slots_per_gpu());
    search_.load(region.expert_at);
    bool time_left = true;
    for (int32_t i = 0; i < kLeastAttempts && time_left; ++i) {
      search_.attempt(enough, random);
      if (i % kAttemptsPerQuestion == 0) time_left = request_.keep_searching();
    }
    region.expert_at.assign(search_.expert_at().begin(), search_.expert_at().end());
    region.peak = search_.peak();
    return time_left;
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

  const BalanceRequest& request_;
  const Topology& topology_;
  const Regions regions_;
  GroupPackings packings_;
  const uint64_t seed_;
  bool alike_ = true;                        // the regions: as many GPUs, as fast
  std::vector<std::vector<double>> speeds_;  // [regions][gpus]
  std::vector<double> region_speed_;         // [regions] their sum
  LayerSearch search_;
  LayerPlan trial_;
  std::vector<double> group_tokens_, fullest_, weights_;
  std::vector<int32_t> node_of_;
};

class Joint : public Balancer {
 public:
  explicit Joint(const BalancerOptions& options) : options_(options) {}
  BalanceResult place(const BalanceRequest& request) const override {
    return JointPlacer(options_, request).place();
  }

 private:
  BalancerOptions options_;
};

}  // namespace

std::unique_ptr<Balancer> make_joint(const BalancerOptions& options) {
  return std::make_unique<Joint>(options);
}

}  // namespace eplbd
