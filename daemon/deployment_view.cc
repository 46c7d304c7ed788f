// What is seen of a deployment from outside: see daemon/deployment.h.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/balance/bound.h"
#include "core/model/imbalance.h"
#include "core/model/noise_floor.h"
#include "daemon/deployment.h"

namespace eplbd {
namespace {

// Load of each GPU over all layers / the mean of those that hold something.
std::vector<double> gpu_load_ratio(const Topology& topology, std::span<const double> gpu_loads,
                                   size_t gpus_down) {
  std::vector<double> ratio(static_cast<size_t>(topology.gpus), 0.0);
  for (size_t i = 0; i < gpu_loads.size(); ++i) ratio[i % ratio.size()] += gpu_loads[i];
  const double mean = std::accumulate(ratio.begin(), ratio.end(), 0.0) /
                      static_cast<double>(ratio.size() - gpus_down);
  if (mean <= 0) return {};
  for (double& value : ratio) value /= mean;
  return ratio;
}

// What chance leaves with so many tokens, or the best that any placement could do: of each layer
// the larger, weighed by the layers' tokens as the imbalance is.
double floor_of(const Rebalancer& rebalancer, std::span<const double> loads) {
  const Topology& topology = rebalancer.topology();
  const ImbalanceBound bound =
      imbalance_bound(rebalancer.options().balancer, topology, loads, rebalancer.gpus_down());
  const double largest_of_gpus = expected_maximum(topology.gpus);
  double peaks = 0;
  double tokens = 0;
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const auto row = loads.subspan(static_cast<size_t>(layer) * topology.logical_experts,
                                   topology.logical_experts);
    const double sum = std::accumulate(row.begin(), row.end(), 0.0);
    if (sum <= 0) continue;
    const double chance = 1 + largest_of_gpus * std::sqrt(topology.gpus / sum);
    peaks += sum * std::max(chance, bound.layers[layer]);
    tokens += sum;
  }
  return tokens > 0 ? peaks / tokens : 0;
}

}  // namespace

double Deployment::measure_floor(Now now) const {
  return floor_of(rebalancer_, rebalancer_.loads(now));
}

Snapshot Deployment::snapshot(Now now) const {
  const Topology& topology = rebalancer_.topology();
  const GroupState& group = rebalancer_.group();
  Snapshot snap;
  snap.mode = rebalancer_.mode();
  snap.paused = rebalancer_.paused(now);
  snap.workers = static_cast<size_t>(rebalancer_.live_sources(now));
  snap.workers_behind = static_cast<size_t>(rebalancer_.sources_behind(now));
  snap.last_counts_unix_seconds = newest_counts_unix_;

  const std::vector<double> loads = rebalancer_.loads(now);
  const std::vector<double> per_gpu = gpu_loads(topology, group.in_force(), loads);
  const Imbalance imbalance = imbalance_of(topology, per_gpu, group.published().gpus_down);
  snap.imbalance = imbalance.whole_model;
  snap.layer_imbalance = imbalance.layers;
  snap.gpu_load_ratio = gpu_load_ratio(topology, per_gpu, group.published().gpus_down.size());
  snap.imbalance_initial = imbalance_of(topology, group.initial(), loads).whole_model;
  snap.imbalance_measured = rebalancer_.measured_imbalance(now);
  snap.imbalance_floor = imbalance.whole_model > 0 ? floor_ : 0;
  snap.imbalance_threshold = rebalancer_.options().trigger.imbalance;
  snap.gain_realised = rebalancer_.gain_realised();

  snap.placement = group.published().id;
  snap.placement_unix_seconds = group.published().unix_seconds;
  snap.gpus_down = static_cast<int>(rebalancer_.gpus_down().size());
  snap.window_half_life_seconds = to_seconds(rebalancer_.half_life());
  return snap;
}

std::vector<std::string> Deployment::problems(Now now) const {
  std::vector<std::string> problems;
  const GroupState& group = rebalancer_.group();
  if (!save_failure_.empty()) problems.push_back("the state cannot be saved: " + save_failure_);
  if (group.topology_mismatch()) problems.push_back(group.mismatch());
  if (group.failed()) {
    problems.push_back(fmt::format("placement {}.{} was not applied: {}", group.published().id.term,
                                   group.published().id.version, group.failure()));
  }
  // Workers that all are gone are no fault of theirs; ones that report but do not count are.
  const auto reported = group.reported_at();
  const Duration timeout = rebalancer_.options().workers.timeout;
  if (reported && now.steady - *reported < timeout && rebalancer_.live_sources(now) == 0 &&
      now.unix_seconds - started_ > to_seconds(timeout)) {
    problems.push_back(fmt::format("workers report their state, but nobody sent counts for {:g} s",
                                   to_seconds(timeout)));
  }
  return problems;
}

}  // namespace eplbd
