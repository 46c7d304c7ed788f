// Enums with a name for each value: on the wire, in files, in configurations and as label values.
//
// An enum gets them by one function beside it, the names in the order of its values:
//   constexpr auto names(Mode) { return std::to_array<std::string_view>({"observe", ...}); }
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <type_traits>

namespace eplbd {

template <typename Enum>
concept Named = std::is_enum_v<Enum> && requires(Enum value) {
  names(value);
};

template <Named Enum>
inline constexpr int kCount = static_cast<int>(names(Enum{}).size());

template <Named Enum>
constexpr std::string_view to_string(Enum value) {
  return names(value)[static_cast<size_t>(value)];
}

template <Named Enum>
constexpr std::optional<Enum> from_name(std::string_view name) {
  for (int i = 0; i < kCount<Enum>; ++i) {
    if (const auto value = static_cast<Enum>(i); to_string(value) == name) return value;
  }
  return std::nullopt;
}

}  // namespace eplbd
