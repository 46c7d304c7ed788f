// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <stdexcept>

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
  score.layers_changed += layers;
  score.max_moves_per_gpu = std::max(score.max_moves_per_gpu, decision.worst_gpu_moves);
}

}  // namespace

ReplayScore replay(const TraceFile& trace, const Topology& topology, const RebalancerOptions& rules,
                   const VirtualTime& time,
                   const std::function<void(const ReplayStep&)>& each_step) {
  VirtualGroup group(topology, rules, time);
  const Placement initial = Placement::initial(topology);
  Balance served(topology);
  Balance kept(topology);
  ReplayScore score;
  score.steps = trace.steps();
  std::vector<double> loads(trace.cells());
  std::vector<uint32_t> counts(trace.cells());
  std::vector<double> decide_seconds;
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
    }
    line.half_life_seconds = to_seconds(group.half_life());
    if (each_step) each_step(line);
  }
  score.balancedness = served.whole_model();
  score.static_balancedness = kept.whole_model();
  score.layer_balancedness = served.layers();
  score.decide_seconds_p99 = percentile_99(std::move(decide_seconds));
  return score;
}

}  // namespace eplbd
