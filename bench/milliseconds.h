// Tables of times.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

namespace eplbd {

using Clock = std::chrono::steady_clock;

inline double ms_between(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - start).count();
}

inline void print_head() {
  std::puts("| ms | times | median | p99 | worst |\n|---|---|---|---|---|");
}

inline void print(const char* what, std::vector<double> ms) {
  if (ms.empty()) return;
  std::sort(ms.begin(), ms.end());
  const auto at = [&](double share) {
    return ms[static_cast<size_t>(share * static_cast<double>(ms.size() - 1))];
  };
  std::printf("| %s | %zu | %.1f | %.1f | %.1f |\n", what, ms.size(), at(0.5), at(0.99), at(1.0));
}

}  // namespace eplbd
