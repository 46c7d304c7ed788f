// Why a worker's message was dropped, for who wrote the worker.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/model/topology.h"
#include "core/workers/worker_report.h"

namespace eplbd {

// Views into the message, or to what lives for ever.
struct Rejection {
  RejectReason reason;
  std::string_view source = {};    // as far as it could be read
  std::string_view key = {};       // at fault; empty: the message as a whole
  std::string_view expected = {};  // of the key: its type, its range
  uint64_t bytes = 0;              // of an array of the wrong shape
  uint64_t expected_bytes = 0;
};

// What came, what was expected and what it may be, in one line without a stop.
std::string explain(const Rejection& rejection, const Topology& topology);

}  // namespace eplbd
