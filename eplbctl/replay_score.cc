// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "eplbctl/replay.h"
#include "eplbctl/virtual_group.h"

namespace eplbd {
namespace {

// Sums of mean and max GPU load over steps, by layer.
class Balance {
 public:
  explicit Balance(const Topology& topology)
      : topology_(topology), means_(topology.layers), peaks_(topology.layers) {
    for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) speed_ += topology.gpu_speed(gpu);
  }

  // Adds one step; returns its imbalance, 0 without load.
  double add(const Placement& placement, std::span<const double> loads) {
    const std::vector<double> served = gpu_loads(topology_, placement, loads);
    double means = 0;
    double peaks = 0;
    for (int32_t layer = 0; layer < topology_.layers; ++layer) {
      const double* gpus = served.data() + static_cast<size_t>(layer) * topology_.gpus;
      double tokens = 0;
      double peak = 0;
      for (int32_t gpu = 0; gpu < topology_.gpus; ++gpu) {
        tokens += gpus[gpu] * topology_.gpu_speed(gpu);
        peak = std::max(peak, gpus[gpu]);
      }
      means_[layer] += tokens / speed_;
      peaks_[layer] += peak;
      means += tokens / speed_;
      peaks += peak;
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

void count_update(const Topology& topology, const Placement& base, const Placement& next,
                  ReplayStep& line, ReplayScore& score) {
  const MoveCount moves = count_moves(topology, base, next);
  line.moves = moves.total;
  line.worst_gpu_moves = moves.worst_gpu;
  line.layers_changed = static_cast<int64_t>(changed_layers(base, next).size());
  ++score.updates;
  score.moves += line.moves;
  score.layers_changed += line.layers_changed;
  score.max_moves_per_gpu = std::max(score.max_moves_per_gpu, line.worst_gpu_moves);
}

}  // namespace

ReplayScore replay(const TraceFile& trace, const Topology& topology, const RebalancerOptions& rules,
                   double step_seconds, double apply_seconds,
                   const std::function<void(const ReplayStep&)>& each_step) {
  VirtualGroup group(topology, rules, step_seconds, apply_seconds);
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
    line.imbalance = served.add(group.serving(), loads);
    line.imbalance_static = kept.add(initial, loads);
    const VirtualGroup::Step result = group.step(counts);
    if (result.decision.verdict == Verdict::update) {
      count_update(topology, result.base, result.decision.update->placement, line, score);
    }
    line.verdict = result.decision.verdict;
    line.decide_seconds = result.decide_seconds;
    line.half_life_seconds = to_seconds(group.half_life());
    ++score.verdicts[line.verdict];
    score.decide_seconds_total += line.decide_seconds;
    decide_seconds.push_back(line.decide_seconds);
    if (each_step) each_step(line);
  }
  score.balancedness = served.whole_model();
  score.static_balancedness = kept.whole_model();
  score.layer_balancedness = served.layers();
  score.decide_seconds_p99 = percentile_99(std::move(decide_seconds));
  return score;
}

}  // namespace eplbd
