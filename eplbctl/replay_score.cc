// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>

#include "core/model/imbalance.h"
#include "eplbctl/replay.h"

namespace eplbd {
namespace {

// Sums of mean and max GPU load over steps, by layer.
class Balance {
 public:
  explicit Balance(const Topology& topology)
      : topology_(topology), means_(topology.layers), peaks_(topology.layers) {
    for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) speed_ += topology.gpu_speed(gpu);
  }

  // Adds a part of one step; returns the step's imbalance under this placement, 0 without load.
  double add(const Placement& placement, std::span<const double> loads, double part = 1) {
    const std::vector<double> served = gpu_loads(topology_, placement, loads);
    const std::vector<double> fullest = imbalance_of(topology_, served).peaks;
    double means = 0;
    double peaks = 0;
    for (int32_t layer = 0; layer < topology_.layers; ++layer) {
      const double* gpus = served.data() + static_cast<size_t>(layer) * topology_.gpus;
      double tokens = 0;
      for (int32_t gpu = 0; gpu < topology_.gpus; ++gpu) {
        tokens += gpus[gpu] * topology_.gpu_speed(gpu);
      }
      means_[layer] += part * tokens / speed_;
      peaks_[layer] += part * fullest[layer];
      means += tokens / speed_;
      peaks += fullest[layer];
    }
    return means > 0 ? peaks / means : 0;
  }

  double whole_model() const {
    double means = 0;
    double peaks = 0;
    for (const double mean : means_) means += mean;
    for (const double peak : peaks_) peaks += peak;
    return peaks > 0 ? means / peaks : 1;
  }
  std::vector<double> layers() const {
    std::vector<double> layers;
    for (size_t layer = 0; layer < means_.size(); ++layer) {
      layers.push_back(peaks_[layer] > 0 ? means_[layer] / peaks_[layer] : 1);
    }
    return layers;
  }

 private:
  const Topology& topology_;
  double speed_ = 0;
  std::vector<double> means_;
  std::vector<double> peaks_;
};

// The smallest value that 99 in 100 are not above.
double percentile_99(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto rank = static_cast<size_t>(std::ceil(0.99 * static_cast<double>(values.size())));
  const auto at = values.begin() + static_cast<ptrdiff_t>(rank - 1);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// The most moves into one GPU in any hour.
class HourOfMoves {
 public:
  explicit HourOfMoves(const Topology& topology) : topology_(topology), in_(topology.gpus, 0) {}

  void add(const PlacementUpdate& update, double seconds) {
    while (!last_.empty() && last_.front().first <= seconds - 3600) {
      for (const Move& move : last_.front().second) --in_[topology_.gpu_of(move.slot)];
      last_.pop_front();
    }
    last_.emplace_back(seconds, update.moves);
    for (const Move& move : update.moves) {
      most_ = std::max(most_, ++in_[topology_.gpu_of(move.slot)]);
    }
  }
  int64_t most() const { return most_; }

 private:
  const Topology& topology_;
  std::deque<std::pair<double, std::vector<Move>>> last_;  // of the hour: seconds, moves
  std::vector<int64_t> in_;                                // [gpus] in it
  int64_t most_ = 0;
};

void count_decision(const VirtualGroup::Decided& decided, ReplayStep& line, ReplayScore& score) {
  const Decision& decision = decided.decision;
  ++score.verdicts[decision.verdict];
  score.decide_seconds_total += decided.seconds;
  line.decide_seconds += decided.seconds;
  if (line.verdict != Verdict::update) line.verdict = decision.verdict;
  if (decision.verdict != Verdict::update) return;
  const auto layers = static_cast<int64_t>(decision.update->changed_layers.size());
  line.moves += decision.moves;
  line.worst_gpu_moves = std::max(line.worst_gpu_moves, decision.worst_gpu_moves);
  line.layers_changed += layers;
  ++score.updates;
  score.moves += decision.moves;
  score.worst_gpu_moves += decision.worst_gpu_moves;
  score.layers_changed += layers;
  score.max_moves_per_gpu = std::max(score.max_moves_per_gpu, decision.worst_gpu_moves);
}

template <typename Group>
ReplayScore replay_group(const TraceFile& trace, const Topology& topology, Group& group,
                         const VirtualTime& time, const EachStep& each_step) {
  const Placement initial = Placement::initial(topology);
  Balance served(topology);
  Balance kept(topology);
  ReplayScore score;
  score.steps = trace.steps();
  std::vector<double> loads(trace.cells());
  std::vector<uint32_t> counts(trace.cells());
  std::vector<double> decide_seconds;
  HourOfMoves hour(topology);
  for (int64_t step = 0; step < trace.steps(); ++step) {
    trace.read_counts(step, loads, counts);
    ReplayStep line;
    line.step = step;
    line.version = group.running().version;
    const VirtualGroup::Step result = group.step(counts);
    for (const auto& [placement, part] : result.served) {
      line.imbalance += part * served.add(placement, loads, part);
    }
    line.imbalance_static = kept.add(initial, loads);
    for (const VirtualGroup::Decided& decided : result.decided) {
      count_decision(decided, line, score);
      decide_seconds.push_back(decided.seconds);
      if (decided.decision.verdict == Verdict::update) {
        hour.add(*decided.decision.update, static_cast<double>(step + 1) * time.step_seconds);
      }
    }
    line.half_life_seconds = to_seconds(group.half_life());
    if (each_step) each_step(line);
  }
  score.balancedness = served.whole_model();
  score.static_balancedness = kept.whole_model();
  score.layer_balancedness = served.layers();
  score.static_layer_balancedness = kept.layers();
  score.most_moves_in_an_hour = hour.most();
  score.decide_seconds_p99 = percentile_99(std::move(decide_seconds));
  return score;
}

}  // namespace

double saved_part(const ReplayScore& score) {
  return 1 - score.static_balancedness / score.balancedness;
}

ReplayScore replay(const TraceFile& trace, const Topology& topology, const RebalancerOptions& rules,
                   const VirtualTime& time, const EachStep& each_step) {
  VirtualGroup group(topology, rules, time);
  return replay_group(trace, topology, group, time, each_step);
}

ReplayScore replay(const TraceFile& trace, const Topology& topology, const EngineOptions& engine,
                   const VirtualTime& time, const EachStep& each_step) {
  EngineGroup group(topology, engine, time);
  return replay_group(trace, topology, group, time, each_step);
}

}  // namespace eplbd
