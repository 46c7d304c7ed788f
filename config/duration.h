// Durations as people write them: a number and one unit, 100ms, 30s, 1.5h, 2d.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/model/time.h"

namespace eplbd {

// Sets `out` and returns nothing, or returns what it must be: "must be a duration with its unit".
std::optional<std::string> parse_duration(std::string_view text, Duration& out);

// What parse_duration() reads, as a regular expression (ECMA 262).
inline constexpr char kDurationPattern[] = "([0-9]+\\.?[0-9]*|\\.[0-9]+)(ms|s|m|h|d)";

// The largest unit that leaves no fraction. Requires: whole milliseconds.
std::string duration_text(Duration duration);

}  // namespace eplbd
