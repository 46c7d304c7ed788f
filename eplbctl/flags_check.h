// Flags whose help says what they take, and checks of values that say what would be right.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string>

#include "config/duration.h"
#include "core/model/names.h"

namespace eplbd {

inline CLI::Validator in_range(double least,
                               double most = std::numeric_limits<double>::infinity()) {
  const auto check = [least, most](const std::string& text) -> std::string {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == '\0' && value >= least && value <= most) return {};
    const std::string limits =
        most < 1e300 ? fmt::format("from {} to {}", least, most) : fmt::format("from {} on", least);
    return "must be a number " + limits + ", is \"" + text + "\"";
  };
  return CLI::Validator(check, "");
}

// A flag, or a word in place, that takes a path.
inline CLI::Option* add_path(CLI::App& command, const std::string& name, std::string& path,
                             const std::string& help) {
  return command.add_option(name, path, help)->type_name(name.starts_with('-') ? "PATH" : "");
}

// Makes seconds of it; a unit must be given, as in the configuration.
inline CLI::Validator duration() {
  const auto to_seconds = [](std::string& text) -> std::string {
    Duration value{};
    const bool known = !parse_duration(text, value);
    if (!known || value < std::chrono::milliseconds(1) || value > std::chrono::hours(24 * 30)) {
      return "must be a duration with its unit, from 1ms to 30d, as 90s, 5m or 2h, is \"" + text +
             "\"";
    }
    text = std::to_string(::eplbd::to_seconds(value));
    return {};
  };
  CLI::Validator validator;
  validator.operation(to_seconds);
  return validator;
}

// One of an enum's names, into a T or an optional of one; --help and errors show the names alone.
template <Named Enum, typename Value>
CLI::Option* add_choice(CLI::App& command, const std::string& flag, Value& value,
                        const std::string& help) {
  std::string list;
  for (const std::string_view name : names(Enum{})) {
    list += (list.empty() ? "" : "|") + std::string(name);
  }
  const auto parse = [&value, list, flag](const CLI::results_t& given) {
    const std::optional<Enum> chosen = from_name<Enum>(given.front());
    if (!chosen) throw CLI::ValidationError(flag, "\"" + given.front() + "\" is none of " + list);
    value = *chosen;
    return true;
  };
  return command.add_option(flag, parse, help)->type_name(list);
}

}  // namespace eplbd
