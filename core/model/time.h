// Time as core sees it: always an argument. Core reads no clock, so that replay, tests and the
// daemon run the same code.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace eplbd {

using Duration = std::chrono::nanoseconds;
// A reading of the monotonic clock; only differences mean anything.
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

// Both readings of one moment. `unix_seconds` dates placements and terms; nothing decays by it.
struct Now {
  TimePoint steady;
  double unix_seconds = 0;
};

inline double to_seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

inline Duration from_seconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

}  // namespace eplbd
