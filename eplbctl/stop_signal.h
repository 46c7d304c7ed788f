// For commands that run until somebody ends them: SIGINT and SIGTERM ask them to stop.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <time.h>

#include <chrono>
#include <csignal>

namespace eplbd {

inline volatile std::sig_atomic_t stop_requested = 0;

inline void stop_on_signals() {
  const auto request = [](int) { stop_requested = 1; };
  std::signal(SIGINT, request);
  std::signal(SIGTERM, request);
}

// False: asked to stop before it was `time`.
inline bool wait_until(std::chrono::steady_clock::time_point time) {
  while (stop_requested == 0) {
    const auto left = std::chrono::nanoseconds(time - std::chrono::steady_clock::now()).count();
    if (left <= 0) return true;
    const timespec wait{static_cast<time_t>(left / 1'000'000'000),
                        static_cast<long>(left % 1'000'000'000)};
    ::nanosleep(&wait, nullptr);  // a signal ends it
  }
  return false;
}

}  // namespace eplbd
