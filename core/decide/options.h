// What an operator may turn, and a reload may change.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "core/balance/balancer.h"
#include "core/decide/decision.h"
#include "core/load/adaptive_window.h"
#include "core/model/time.h"

namespace eplbd {

struct TriggerOptions {
  // Of a layer: above which we act, where the whole model gains enough by it.
  double imbalance = 1.10;
  double settle = 1.05;  // of a layer: where an update stops improving it
  Duration interval = std::chrono::milliseconds(100);  // how often it decides
  Duration cooldown = std::chrono::seconds(5);         // since the last placement was applied
  int64_t min_tokens = 0;                              // routed tokens in the window
  int64_t min_tokens_per_gpu_step = 64;  // below some size, time does not follow tokens
  double min_gain = 0.01;                // least drop of the whole model's imbalance
};

struct LimitOptions {  // 0: no limit
  int64_t updates_per_hour = 120;
  int64_t moves_per_hour = 0;
  int64_t max_moves = 0;          // of one update
  int64_t max_moves_per_gpu = 0;  // incoming, of one update
  int64_t max_layers = 0;         // of one update
  int64_t sources = 4096;
};

struct WorkerOptions {
  std::string engine;                           // the one followed; empty: the first heard
  Duration timeout = std::chrono::seconds(30);  // silent longer: no longer live
  Duration apply_timeout = std::chrono::seconds(120);
};

struct RebalancerOptions {
  Mode mode = Mode::active;
  bool follow_shape = false;  // a group that reports another one is planned for by itself
  WindowOptions window;
  TriggerOptions trigger;
  LimitOptions limits;
  BalancerOptions balancer;
  WorkerOptions workers;
};

}  // namespace eplbd
