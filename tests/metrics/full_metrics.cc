// SPDX-License-Identifier: Apache-2.0
#include "tests/metrics/full_metrics.h"

namespace eplbd {

Topology small_topology() {
  Topology topology;
  topology.layers = 2;
  topology.logical_experts = 8;
  topology.slots = 12;
  topology.gpus = 4;
  topology.layer_ids = {3, 4};
  return topology;
}

Snapshot full_snapshot() {
  Snapshot now;
  now.mode = Mode::shadow;
  now.paused = true;
  now.leader = false;
  now.workers = 4;
  now.workers_behind = 1;
  now.last_counts_unix_seconds = 1700000100.25;
  now.imbalance = 1.25;
  now.imbalance_initial = 1.5;
  now.imbalance_measured = 1.3;
  now.imbalance_floor = 1.02;
  now.imbalance_threshold = 1.1;
  now.gain_realised = 0.0;
  now.imbalance_would_be = 1.05;
  now.updates_left = 7;
  now.moves_left = 0;
  now.next_update_unix_seconds = 1700000300;
  now.sources = {{"dp0", 120, 2, false, 1700000100.25}, {"dp1", 100, 0, true, 1700000090.5}};
  now.layer_imbalance = {1.2, 0};
  now.gpu_load_ratio = {1.25, 1.0, 0.75, 0.0};
  now.problems = {{ProblemKind::broken_map, "dp0"},
                  {ProblemKind::worker_clock, "dp1"},
                  {ProblemKind::worker_clock, "dp2"}};
  now.placement = {1700000000, 7};
  now.placement_unix_seconds = 1700000050.5;
  now.gpus_down = 1;
  now.window_half_life_seconds = 30;
  return now;
}

std::unique_ptr<Metrics> full_metrics() {
  auto metrics = std::make_unique<Metrics>("m-decode", small_topology(), "1.2.3", 44'040'192);
  Decision decision;
  decision.imbalance_after = 1.04;
  metrics->decided(decision, 0);
  metrics->refresh(full_snapshot());
  return metrics;
}

}  // namespace eplbd
