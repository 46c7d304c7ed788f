// Our online policy: starts from the placement in force and pays for every move.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "core/layer_climb.h"
#include "core/policies.h"

namespace eplbd {
namespace {

// Drop of a layer's smoothed peak, in mean GPU loads, below which a move is not worth its weights.
constexpr double kLeastGainPerMove = 0.0008;

// The steps that one layer would take, in their order.
struct LayerPath {
  int32_t layer = 0;
  double weight = 0;  // its mean GPU load against the mean layer's
  double gain = 0;
  size_t taken = 0;
  bool closed = false;
  std::vector<SearchStep> steps;

  double merit() const {
    const SearchStep& step = steps[taken];
    return weight * step.gain / std::max(step.moves, 1);
  }
};

class Update {
 public:
  Update(const BalanceRequest& request, bool grouped)
      : request_(request),
        topology_(request.topology),
        search_(topology_, request.gpus_down, grouped),
        grouped_(grouped),
        map_(request.current->map()),
        incoming_(topology_.gpus) {}

  BalanceResult run() {
    double mean_of_layers = 0;
    for (int32_t layer = 0; layer < topology_.layers; ++layer) {
      mean_of_layers += find_path(layer) / topology_.layers;
    }
    for (LayerPath& path : paths_) {
      if (mean_of_layers > 0) path.weight /= mean_of_layers;
    }
    keep_best_layers();
    take_steps();
    // An expert may have left its GPU and come back to another slot of it.
    const Placement next(topology_, std::move(map_));
    return {keep_slots(topology_, *request_.current, next).map(), {}, grouped_};
  }

 private:
  std::span<int32_t> row(int32_t layer) {
    return {map_.data() + static_cast<size_t>(layer) * topology_.slots,
            static_cast<size_t>(topology_.slots)};
  }

  // What must change in any case goes to the map at once, what would pay is kept as a path.
  // Returns the layer's mean GPU load.
  double find_path(int32_t layer) {
    const auto experts = static_cast<size_t>(topology_.logical_experts);
    if (!search_.start(row(layer), request_.loads.subspan(layer * experts, experts))) {
      throw std::invalid_argument("layer " + std::to_string(layer) +
                                  ": the GPUs that are up have no place for every expert");
    }
    const auto required = search_.slot_to_expert();
    count_incoming(row(layer), required);
    std::copy(required.begin(), required.end(), row(layer).begin());
    LayerPath path;
    path.layer = layer;
    path.weight = search_.mean_load();
    while (search_.imbalance() > request_.settle) {
      const auto step = search_.improve(kLeastGainPerMove);
      if (!step) break;
      path.gain += step->gain * path.weight;
      path.steps.push_back(*step);
    }
    if (!path.steps.empty()) paths_.push_back(std::move(path));
    return search_.mean_load();
  }

  void count_incoming(std::span<const int32_t> before, std::span<const int32_t> after) {
    for (int32_t slot = 0; slot < topology_.slots; ++slot) {
      if (after[slot] == before[slot] || after[slot] == kNoExpert) continue;
      ++incoming_[topology_.gpu_of(slot)];
      ++moves_;
    }
  }

  void keep_best_layers() {
    const auto limit = static_cast<size_t>(request_.budget.layers);
    if (limit == 0 || paths_.size() <= limit) return;
    std::stable_sort(paths_.begin(), paths_.end(),
                     [](const LayerPath& a, const LayerPath& b) { return a.gain > b.gain; });
    paths_.resize(limit);
  }

  // The steps of all layers, each layer's in its order, best gain per move first, until the budget
  // is spent.
  void take_steps() {
    while (true) {
      LayerPath* best = nullptr;
      for (LayerPath& path : paths_) {
        if (path.closed || path.taken == path.steps.size()) continue;
        if (!best || path.merit() > best->merit()) best = &path;
      }
      if (!best) return;
      const SearchStep& step = best->steps[best->taken];
      if (!affordable(step)) {
        best->closed = true;
        continue;
      }
      for (int32_t i = 0; i < step.count; ++i) {
        row(best->layer)[step.changes[i].slot] = step.changes[i].expert;
        ++incoming_[topology_.gpu_of(step.changes[i].slot)];
      }
      moves_ += step.moves;
      ++best->taken;
    }
  }

  bool affordable(const SearchStep& step) const {
    const MoveBudget& budget = request_.budget;
    if (budget.moves > 0 && moves_ + step.moves > budget.moves) return false;
    if (budget.moves_per_gpu == 0) return true;
    for (int32_t i = 0; i < step.count; ++i) {
      if (incoming_[topology_.gpu_of(step.changes[i].slot)] >= budget.moves_per_gpu) return false;
    }
    return true;
  }

  const BalanceRequest& request_;
  const Topology& topology_;
  LayerClimb search_;
  const bool grouped_;
  std::vector<int32_t> map_;
  std::vector<int64_t> incoming_;  // [gpus]
  int64_t moves_ = 0;
  std::vector<LayerPath> paths_;
};

class Incremental final : public Balancer {
 public:
  explicit Incremental(const BalancerOptions& options) : options_(options) {}

  BalanceResult place(const BalanceRequest& request) const override {
    return Update(request, places_hierarchically(options_, request.topology)).run();
  }

 private:
  BalancerOptions options_;
};

}  // namespace

std::unique_ptr<Balancer> make_incremental(const BalancerOptions& options) {
  return std::make_unique<Incremental>(options);
}

}  // namespace eplbd
