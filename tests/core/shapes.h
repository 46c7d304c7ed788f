// Small deployments, loads and messages that core's tests share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/decide/rebalancer.h"
#include "core/model/placement.h"
#include "core/model/time.h"
#include "core/model/topology.h"
#include "core/workers/worker_report.h"

namespace eplbd {

inline Topology make_topology(int32_t layers, int32_t experts, int32_t slots, int32_t gpus,
                              int32_t nodes = 1, int32_t groups = 1) {
  Topology topology;
  topology.layers = layers;
  topology.logical_experts = experts;
  topology.slots = slots;
  topology.gpus = gpus;
  topology.nodes = nodes;
  topology.groups = groups;
  return topology;
}

// A moment of the tests' time: `seconds` after it began.
inline Now at(double seconds) {
  return {TimePoint(from_seconds(1000.0 + seconds)), 1'700'000'000.0 + seconds};
}

template <typename T>
PackedArray<T> packed(const std::vector<T>& values) {
  return PackedArray<T>(std::as_bytes(std::span(values)));
}

// Tokens with a heavy tail, as routing shows; the same for the same seed.
inline std::vector<double> skewed_loads(const Topology& topology, uint32_t seed,
                                        double sigma = 1.0) {
  std::mt19937 random(seed);
  std::lognormal_distribution<double> draw(5.0, sigma);
  std::vector<double> loads(static_cast<size_t>(topology.layers) * topology.logical_experts);
  for (double& load : loads) load = draw(random);
  return loads;
}

// The same in every layer, as each token passes all of them: so many tokens.
inline std::vector<double> routed_loads(const Topology& topology, uint32_t seed, double tokens,
                                        double sigma = 1.0) {
  std::vector<double> loads = skewed_loads(topology, seed, sigma);
  for (auto row = loads.begin(); row != loads.end(); row += topology.logical_experts) {
    const double sum = std::accumulate(row, row + topology.logical_experts, 0.0);
    for (auto load = row; load != row + topology.logical_experts; ++load) *load *= tokens / sum;
  }
  return loads;
}

inline std::vector<uint32_t> as_counts(const std::vector<double>& loads) {
  return {loads.begin(), loads.end()};
}

// One publisher of counts. The report views this object's counts.
struct Publisher {
  std::string source = "dp0";
  std::string engine;
  uint64_t epoch = 1;
  uint64_t sequence = 0;
  double since = 1'700'000'000.0;
  bool cumulative = false;
  bool global = false;
  PlacementId running;
  std::vector<uint32_t> counts;

  CountsReport report(double ts) {
    CountsReport report;
    report.source = source;
    report.engine = engine;
    report.epoch = epoch;
    report.sequence = sequence++;
    report.since = since;
    report.ts = 1'700'000'000.0 + ts;
    report.steps = 1;
    report.running = running;
    report.cumulative = cumulative;
    report.global = global;
    report.counts = packed(counts);
    return report;
  }
};

// The one worker of the group that reports its state.
struct Reporter {
  std::string source = "dp0-state";
  uint64_t epoch = 1;
  uint64_t sequence = 0;
  bool inactive_gpus = false;

  StateReport report(const Topology& topology, double ts, PlacementId running, const Placement& map,
                     WorkerStatus status = WorkerStatus::idle) {
    StateReport report;
    report.source = source;
    report.epoch = epoch;
    report.sequence = sequence++;
    report.ts = 1'700'000'000.0 + ts;
    report.running = running;
    report.status = status;
    report.layers = topology.layers;
    report.logical_experts = topology.logical_experts;
    report.slots = topology.slots;
    report.gpus = topology.gpus;
    report.physical_to_logical = packed(map.map());
    report.inactive_gpus = inactive_gpus;
    return report;
  }
};

}  // namespace eplbd
