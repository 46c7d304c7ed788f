// Flags whose help says what they take, and checks of values that say what would be right.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>

namespace eplbd {

inline CLI::Validator in_range(double least,
                               double most = std::numeric_limits<double>::infinity()) {
  const auto check = [least, most](const std::string& text) -> std::string {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == '\0' && value >= least && value <= most) return {};
    char limits[64];
    std::snprintf(limits, sizeof(limits), most < 1e300 ? "from %g to %g" : "from %g on", least,
                  most);
    return "must be a number " + std::string(limits) + ", is \"" + text + "\"";
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
    char* unit = nullptr;
    double seconds = std::strtod(text.c_str(), &unit);
    bool known = unit != text.c_str();
    if (const std::string name = unit; name == "ms") {
      seconds *= 1e-3;
    } else if (name == "m") {
      seconds *= 60;
    } else if (name == "h") {
      seconds *= 3600;
    } else if (name == "d") {
      seconds *= 86400;
    } else {
      known = known && name == "s";
    }
    if (!known || !(seconds >= 1e-3 && seconds <= 30 * 86400.0)) {
      return "must be a duration with its unit, from 1ms to 30d, as 90s, 5m or 2h, is \"" + text +
             "\"";
    }
    text = std::to_string(seconds);
    return {};
  };
  CLI::Validator validator;
  validator.operation(to_seconds);
  return validator;
}

}  // namespace eplbd
