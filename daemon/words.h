// Numbers as people read them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

namespace eplbd {

// 1234567 -> 1,234,567
inline std::string grouped(int64_t value) {
  std::string text = std::to_string(value);
  for (int at = static_cast<int>(text.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3) {
    text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

// 93784 -> "1d 2h", 75 -> "1m 15s", 0.25 -> "0.2s": the two largest units.
inline std::string duration_words(double seconds) {
  if (seconds < 10) return fmt::format("{:.1f}s", std::max(0.0, seconds));
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  const auto words = [](int64_t a, const char* u, int64_t b, const char* v) {
    return std::to_string(a) + u + (b > 0 ? " " + std::to_string(b) + v : "");
  };
  if (whole < 60) return std::to_string(whole) + "s";
  if (whole < 3600) return words(whole / 60, "m", whole % 60, "s");
  if (whole < 86400) return words(whole / 3600, "h", whole % 3600 / 60, "m");
  return words(whole / 86400, "d", whole % 86400 / 3600, "h");
}

// 1 update, 2 updates
inline std::string counted(int64_t count, const char* thing) {
  return grouped(count) + " " + thing + (count == 1 ? "" : "s");
}

}  // namespace eplbd
