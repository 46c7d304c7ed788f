// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/layer_climb.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace eplbd {
namespace {

constexpr int kMostDoublings = 1;
// GPUs that are tried in the end, the fullest first: one that cannot be lowered does not stop the
// others. On 144 GPUs all of them bring 0.002 of balancedness more than one, half of it these, at
// twice the time.
constexpr size_t kMostGpus = 4;
// Powers that may be squared: what is not allowed costs more than any power (see kNever in
// climb_kernels.h). A GPU 40 times as full as the mean is lowered by the soft maximum.
constexpr float kMostToSquare = 1e13F;
constexpr double kNoChange = 1e-9;  // of the sum of powers: rounding

int32_t fullest_gpu(const LayerState& state) {
  const auto end = state.powers.begin() + state.topology.gpus;
  return static_cast<int32_t>(std::max_element(state.powers.begin(), end) - state.powers.begin());
}

// Of the soft maximum against the sum of powers: it is (sum / GPUs)^(1 / power).
double slope_of(const LayerState& state) {
  float sums[kBlock] = {};  // one addition waits for another
  for (size_t gpu = 0; gpu < state.powers.size(); gpu += kBlock) {
    for (size_t i = 0; i < kBlock; ++i) sums[i] += state.powers[gpu + i];
  }
  const double sum = std::accumulate(std::begin(sums), std::end(sums), 0.0);
  if (sum <= 0) return 0;
  double soft_maximum = sum / state.live_gpus;
  for (int i = 0; i < 3 + state.doublings; ++i) soft_maximum = std::sqrt(soft_maximum);
  return soft_maximum / ((8 << state.doublings) * sum);
}

}  // namespace

LayerClimb::LayerClimb(const Topology& topology, std::span<const int32_t> gpus_down, bool grouped)
    : state_(topology, gpus_down, grouped),
      exchanges_(state_),
      turnovers_(state_),
      recounts_(state_, turnovers_),
      returns_(state_) {}

bool LayerClimb::start(std::span<const int32_t> slot_to_expert, std::span<const double> loads,
                       std::span<const double> steady, double steady_weight) {
  const bool two = !steady.empty() && steady_weight > 0;
  const WeighedLoad both[2] = {{loads, two ? 1 - steady_weight : 1}, {steady, steady_weight}};
  return start(slot_to_expert, std::span(both, two ? 2 : 1));
}

bool LayerClimb::start(std::span<const int32_t> slot_to_expert,
                       std::span<const WeighedLoad> loads) {
  climbing_ = recounted_ = false;
  state_.start(slot_to_expert, loads);
  return repair();
}

double LayerClimb::expected_peak(double sharpness) const {
  double result = 0;
  for (const auto& scenario : state_.scenarios) {
    const float peak = *std::max_element(scenario.gpu_load.begin(), scenario.gpu_load.end());
    const double sum =
        sum_of_exponentials(scenario.gpu_load, state_.live, peak, static_cast<float>(sharpness));
    result += scenario.weight * (peak + std::log(sum) / sharpness);
  }
  return result;
}

std::optional<ClimbStep> LayerClimb::improve(double least_gain) {
  if (!climbing_) state_.raise_to(0);
  climbing_ = true;
  while (true) {
    const ClimbStep step = best_step(least_gain);
    if (step.count > 0) {
      state_.put(std::span(step.changes, step.count));
      return step;
    }
    // A softer maximum sees further, a harder one ends closer.
    if (recounted_) {
      recounted_ = false;
    } else if (state_.doublings < kMostDoublings &&
               state_.powers[fullest_gpu(state_)] < kMostToSquare) {
      state_.raise_to(state_.doublings + 1);
    } else {
      return std::nullopt;
    }
  }
}

double LayerClimb::plan_recount(double least_gain, double worth) {
  return recounts_.plan(static_cast<float>(least_gain), static_cast<float>(worth));
}

std::optional<ClimbStep> LayerClimb::recount() {
  if (!recounted_) state_.raise_to(0);
  recounted_ = climbing_ = true;
  const auto step = recounts_.next();
  if (step) state_.put(std::span(step->changes, step->count));
  return step;
}

std::optional<ClimbStep> LayerClimb::take_back() {
  const auto step = returns_.next();
  if (step) repeat(*step);
  return step;
}

// Of the fullest GPU. Where that has none, in the end, of those that come next.
ClimbStep LayerClimb::best_step(double least_gain) {
  Candidate best;
  const double slope = slope_of(state_);
  if (slope <= 0) return best.step;
  best.worth = static_cast<float>(std::max(least_gain / slope, kNoChange));
  if (recounted_) {
    exchanges_.run(fullest_gpu(state_), best);
    return best.step;
  }
  find_step(fullest_gpu(state_), best);
  if (best.step.count > 0 || state_.doublings < kMostDoublings) return best.step;
  find_fullest();
  for (size_t i = 1; i < fullest_.size() && best.step.count == 0; ++i) {
    find_step(fullest_[i], best);
  }
  return best.step;
}

// The fullest GPUs, the first one first. Where groups are kept on nodes, one node's says nothing of
// what another's can gain: the fullest of each.
void LayerClimb::find_fullest() {
  const auto fuller = [&](int32_t a, int32_t b) {
    return state_.powers[a] != state_.powers[b] ? state_.powers[a] > state_.powers[b] : a < b;
  };
  const Topology& topology = state_.topology;
  fullest_.resize(topology.gpus);
  std::iota(fullest_.begin(), fullest_.end(), 0);
  size_t most = std::min(kMostGpus, fullest_.size());
  if (state_.grouped) {
    const int32_t gpus = topology.gpus / topology.nodes;
    for (int32_t node = 0; node < topology.nodes; ++node) {
      const auto first = fullest_.begin() + node * gpus;
      fullest_[node] = *std::min_element(first, first + gpus, fuller);
    }
    most = topology.nodes;
    fullest_.resize(most);
  }
  std::partial_sort(fullest_.begin(), fullest_.begin() + static_cast<ptrdiff_t>(most),
                    fullest_.end(), fuller);
  fullest_.resize(most);
}

// Turnovers first: they cost one move, and what they are worth most exchanges need not reach for.
void LayerClimb::find_step(int32_t gpu, Candidate& best) {
  turnovers_.spares_of(gpu, best);
  exchanges_.run(gpu, best);
  turnovers_.experts_of(gpu, best);
  turnovers_.beside_each_other(gpu, best);
}

}  // namespace eplbd
