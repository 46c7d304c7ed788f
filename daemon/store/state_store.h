// Where a deployment's state outlives its process, as who serves the deployment sees it: a file of
// its own (state_file.h), or, for several daemons of which one leads, etcd (daemon/etcd).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/decide/rebalancer.h"
#include "core/model/time.h"

namespace eplbd {

struct Recovered {
  std::optional<RebalancerState> state;  // nothing: a first start, or nothing usable
  std::vector<std::string> notes;        // for the log: what was set aside, and why
};

// One daemon's turn to lead.
struct Leadership {
  int64_t fence = 0;  // what tells it from every other one
  uint64_t term = 0;  // above every earlier one's
  TimePoint until{};  // of the monotonic clock, unless it is renewed
};

// May be called on another thread than the rest, by one at a time.
class StateStore {
 public:
  virtual ~StateStore() = default;

  // What was saved last. Throws std::runtime_error where it cannot be known, or is not ours to
  // replace.
  virtual Recovered load() = 0;

  // Durable when it returns. Throws std::runtime_error with the step and the reason; what is found
  // afterwards is then the state before, or this one.
  virtual void save(const RebalancerState& state) = 0;

  // What is loaded and saved from here on is of this leadership: saving fails when it is over,
  // however late that is known here. A store that one process has for itself needs no such thing.
  virtual void fence(int64_t) {}
};

}  // namespace eplbd
