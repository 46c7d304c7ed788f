// Where a deployment's state outlives its process, as who serves the deployment sees it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/decide/rebalancer.h"

namespace eplbd {

class StateStore {
 public:
  virtual ~StateStore() = default;

  // Durable when it returns. Throws std::runtime_error with the step and the reason; what is found
  // afterwards is then the state before, or this one. May be called on another thread than the
  // rest, by one at a time.
  virtual void save(const RebalancerState& state) = 0;
};

}  // namespace eplbd
