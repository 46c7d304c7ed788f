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

// Of which so large a share is below it; 0 of none.
inline double at_share(std::vector<double> ms, double share) {
  if (ms.empty()) return 0;
  std::sort(ms.begin(), ms.end());
  return ms[static_cast<size_t>(share * static_cast<double>(ms.size() - 1))];
}

inline void print(const char* what, const std::vector<double>& ms) {
  if (ms.empty()) return;
  std::printf("| %s | %zu | %.1f | %.1f | %.1f |\n", what, ms.size(), at_share(ms, 0.5),
              at_share(ms, 0.99), at_share(ms, 1));
}

}  // namespace eplbd
