// SPDX-License-Identifier: Apache-2.0
#include "config/duration.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>

namespace eplbd {
namespace {

struct Unit {
  std::string_view name;
  int64_t milliseconds;
};
// Longest first, so that the largest unit without a fraction is found first.
constexpr Unit kUnits[] = {
    {"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}};

// Far above every range that a duration has, and far below an overflow of nanoseconds.
constexpr double kMaxMilliseconds = 1e12;

}  // namespace

std::optional<std::string> parse_duration(std::string_view text, Duration& out) {
  constexpr const char* kExpected = "must be a duration with its unit (100ms, 30s, 5m, 2h, 1d)";
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  double count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + digits, count);
  if (error != std::errc{} || end != text.data() + digits) return kExpected;
  for (const Unit& unit : kUnits) {
    if (text.substr(digits) != unit.name) continue;
    const double milliseconds = count * static_cast<double>(unit.milliseconds);
    if (milliseconds > kMaxMilliseconds) return "must be a shorter duration";
    if (milliseconds != std::floor(milliseconds)) return "must be whole milliseconds";
    out = std::chrono::milliseconds(static_cast<int64_t>(milliseconds));
    return {};
  }
  return kExpected;
}

std::string duration_text(Duration duration) {
  const int64_t milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
  if (milliseconds == 0) return "0s";
  for (const Unit& unit : kUnits) {
    if (milliseconds % unit.milliseconds == 0) {
      return std::to_string(milliseconds / unit.milliseconds) + std::string(unit.name);
    }
  }
  return {};  // not reached: the last unit is one millisecond
}

}  // namespace eplbd
