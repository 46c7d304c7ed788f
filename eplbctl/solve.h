// `eplbctl solve`: one placement for the loads of a file, as JSON.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "core/balance/balancer.h"
#include "eplbctl/shape.h"

namespace eplbd {

struct SolveOptions {
  std::string loads;  // a file
  ShapeOptions shape;
  BalancerOptions balancer{.policy = Policy::joint};
  std::string current;  // a placement file; empty: the initial placement
  MoveBudget budget;
  double settle = 1.0;
  double search_seconds = 0;  // joint only; 0: until its own end
  bool bound = false;
  int repeat = 1;
};

// Prints one JSON object; returns the exit code.
int run_solve(const SolveOptions& options);

}  // namespace eplbd
