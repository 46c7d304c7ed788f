// What somebody who wrote a name wrong may have meant.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace eplbd {

// The first of the known names that are fewest letters away from `name`, when those are at most a
// third of its own (1 to 4).
std::optional<std::string> nearest(std::string_view name, std::span<const std::string> known);

}  // namespace eplbd
