// Our online policy: starts from the placement in force and pays for every move.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>

#include "core/balance/online/layer_climb.h"
#include "core/balance/online/layer_path.h"
#include "core/balance/policies.h"
#include "core/model/noise_floor.h"

namespace eplbd {
namespace {

// ---- The constants, and where they are from ----
//
// How much the steady load counts beside the one to plan for: experts that were full together for
// long are kept apart, and less is undone when a mix comes back. Small batches on 8, 16, 20 GPUs
// were balanced alike at 0.15, at 0 with up to two fifths more moves.
constexpr double kSteadyWeight = 0.3;
// The price of a move. All GPUs fetch at once, so what counts is a round: one move for every GPU in
// a layer. What makes an update worth it, trigger.min_gain, pays for rounds in so large a part of
// the layers. Half of it doubles the price. Measured: from 0.4 to 0.2 moves fall by a quarter, for
// 0.001 to 0.002 of balancedness, on 32 to 128 GPUs (recorded popularity, drifting mix).
constexpr double kRoundsOfAnUpdate = 0.33;
// The fewer reports a load is known from, the more of what a step promises is chance: with n of
// them a part of 1 / (1 + this / n) is left. Right after a jump a move that is not worth it so can
// wait: a second later twice as much is known. At 2, jumps sometimes take a second update.
constexpr double kDoubtOfNews = 1;
// A demand above that is the rules' to refuse: what there is to gain is searched all the same.
constexpr double kMostMinGain = 0.05;
// The climb looks further than the price: a small step may open a larger one. At 0.2 and 0.4 it
// ends sooner, 0.001 and 0.004 of balancedness worse. And not for ever, where moves are free.
constexpr double kPriceOfAStep = 0.1;
constexpr double kLeastGainOfAStep = 1e-6;
// Better replica counts are a way up of their own, where they promise as much as so many moves
// cost: they are only the beginning of it. By judgement, not by measurement.
constexpr int32_t kMovesOfMuch = 10;

// What a move must gain of its layer's expected peak. Each second that nothing can be decided in,
// as an update is being applied, is one in which no move is spent: the price falls as they get
// fewer.
double price_of(const BalanceRequest& request, int32_t gpus) {
  const double rounds = std::min(request.min_gain, kMostMinGain) / kRoundsOfAnUpdate;
  const double doubt = 1 + kDoubtOfNews * request.outlook.newest_share;
  return rounds / gpus * doubt / (1 + request.apply_seconds);
}

class Update {
 public:
  Update(const BalanceRequest& request, bool grouped)
      : request_(request),
        topology_(request.topology),
        climb_(topology_, request.gpus_down, grouped),
        grouped_(grouped),
        taker_(topology_, request.budget, request.in_force.map()),
        sharpness_(sharpness(live_gpus(), gpu_error(topology_, request.outlook.error))),
        price_(price_of(request, live_gpus())),
        least_gain_(std::max(kPriceOfAStep * price_, kLeastGainOfAStep)),
        steps_left_(request.steps > 0 ? request.steps : std::numeric_limits<int64_t>::max()) {}

  Proposal run() {
    const double mean_of_layers = repair_layers();
    // Where most is to be had first: the rest is for the next decision, if this one has no time.
    std::stable_sort(hopes_.begin(), hopes_.end(),
                     [](const Hope& a, const Hope& b) { return a.gain > b.gain; });
    for (const Hope& hope : hopes_) {
      if (steps_left_ > 0) climb(hope.layer, hope.mean_load / mean_of_layers);
    }
    keep_best_layers();
    do {
      taker_.take(paths_);
    } while (climb_around_full_gpus());
    for (const LayerPath& path : paths_) gain_ += path.weight * path.gain(path.taken);
    // An expert may have left its GPU and come back to another slot of it.
    const Placement next(topology_, std::move(taker_.map()));
    return {keep_slots(topology_, request_.in_force, next),
            grouped_ ? GroupRule::no_wider_than_base : GroupRule::none, gain_ / topology_.layers};
  }

 private:
  struct Hope {
    int32_t layer = 0;
    double mean_load = 0;
    double gain = 0;  // at most, in tokens
  };

  int32_t live_gpus() const {
    return topology_.gpus - static_cast<int32_t>(request_.gpus_down.size());
  }
  std::span<const double> layer_of(std::span<const double> loads, int32_t layer) const {
    const auto experts = static_cast<size_t>(topology_.logical_experts);
    return loads.empty() ? loads : loads.subspan(layer * experts, experts);
  }

  // Of a placement in which all GPUs are alike.
  double perfect_peak() const { return 1 + std::log(live_gpus()) / sharpness_; }

  bool start(int32_t layer) {
    const auto row = full_gpus_ > 0 ? taker_.layer(layer) : request_.in_force.layer(layer);
    return climb_.start(row, layer_of(request_.outlook.loads, layer),
                        layer_of(request_.outlook.steady_loads, layer), kSteadyWeight);
  }

  // What must change in any case goes to the map at once; layers of which more may pay are noted.
  // Returns the mean over layers of their mean GPU load.
  double repair_layers() {
    double sum = 0;
    for (int32_t layer = 0; layer < topology_.layers; ++layer) {
      if (!start(layer)) {
        throw std::invalid_argument("layer " + std::to_string(layer) +
                                    ": the GPUs that are up have no place for every expert");
      }
      taker_.require(layer, climb_.slot_to_expert());
      sum += climb_.mean_load();
      if (climb_.mean_load() <= 0) continue;
      const double peak = climb_.expected_peak(sharpness_);
      if (peak <= request_.settle || peak - perfect_peak() < price_) continue;
      hopes_.push_back({layer, climb_.mean_load(), climb_.mean_load() * (peak - perfect_peak())});
    }
    return sum / topology_.layers;
  }

  // Step by step from where the layer stands, back to where it paid most.
  void climb(int32_t layer, double weight) {
    start(layer);
    LayerPath path{.layer = layer, .weight = weight, .points = {}};
    const double before = climb_.expected_peak(sharpness_);
    const double much = kMovesOfMuch * price_;
    bool recounting = climb_.plan_recount(least_gain_, much) > much;
    double most = 0;
    size_t best = 0;
    int32_t moves = 0;
    // As many steps as exchange every slot: a climb ends sooner, but for rounding.
    const auto most_steps = static_cast<size_t>(topology_.slots);
    for (; steps_left_ > 0 && path.points.size() < most_steps; --steps_left_) {
      std::optional<ClimbStep> step;
      if (recounting) step = climb_.recount();
      recounting = step.has_value();
      if (!step) step = climb_.improve(least_gain_);
      if (!step) break;
      moves += step->moves;
      const double peak = climb_.expected_peak(sharpness_);
      path.points.push_back({*step, before - peak, moves});
      if (const double value = before - peak - price_ * moves; value > most) {
        most = value;
        best = path.points.size();
      }
      if (peak <= request_.settle) break;
    }
    --steps_left_;  // A search in vain is one as well.
    path.points.resize(best);
    take_back(path, before);
    if (best > 0) paths_.push_back(std::move(path));
  }

  // What the path's end makes of no use goes back. The climb may have gone on beyond that end.
  void take_back(LayerPath& path, double before) {
    start(path.layer);
    for (const LayerPath::Point& point : path.points) climb_.repeat(point.step);
    climb_.begin_to_take_back(sharpness_, price_);
    while (const auto step = climb_.take_back()) {
      const int32_t moves = path.moves(path.points.size()) + step->moves;
      path.points.push_back({*step, before - climb_.expected_peak(sharpness_), moves});
    }
  }

  void keep_best_layers() {
    const auto limit = static_cast<size_t>(request_.budget.layers);
    if (limit == 0 || paths_.size() <= limit) return;
    const auto gain = [](const LayerPath& path) {
      return path.weight * path.gain(path.points.size());
    };
    std::stable_sort(paths_.begin(), paths_.end(),
                     [&](const LayerPath& a, const LayerPath& b) { return gain(a) > gain(b); });
    paths_.resize(limit);
  }

  // A GPU that may take in no more ends every path that leads over it. Where that leaves something
  // of the budget, there are ways around. False: nothing does.
  bool climb_around_full_gpus() {
    const std::vector<char> full = taker_.full_gpus();
    const auto count = std::count(full.begin(), full.end(), 1);
    if (count <= full_gpus_ || steps_left_ <= 0) return false;
    full_gpus_ = count;
    climb_.close(full);
    std::vector<LayerPath> blocked;
    for (LayerPath& path : paths_) {
      gain_ += path.weight * path.gain(path.taken);
      if (path.taken < path.points.size()) blocked.push_back(std::move(path));
    }
    paths_.clear();
    for (const LayerPath& path : blocked) {
      if (steps_left_ > 0) climb(path.layer, path.weight);
    }
    return true;
  }

  const BalanceRequest& request_;
  const Topology& topology_;
  LayerClimb climb_;
  const bool grouped_;
  StepTaker taker_;
  const double sharpness_;
  const double price_;       // of a move: drop of a layer's expected peak that it must buy
  const double least_gain_;  // of a step
  int64_t steps_left_;
  std::vector<Hope> hopes_;
  std::vector<LayerPath> paths_;
  int64_t full_gpus_ = 0;
  double gain_ = 0;  // of the paths that were given up where they stood, over all layers
};

class Incremental final : public Balancer {
 public:
  explicit Incremental(const BalancerOptions& options) : options_(options) {}

  Proposal propose(const BalanceRequest& request) const override {
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
