// One YAML value -> a number, boolean, duration or text, and what is wrong with it if it is none.
// Strict where YAML 1.1 surprises: 010 is no octal, yes no boolean, .nan and .inf no numbers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "config/yaml_node.h"
#include "core/model/time.h"

namespace eplbd {

// Each sets `out` and returns nothing, or returns what is wrong as "must be ..., is ...".
using Wrong = std::optional<std::string>;
Wrong parse_text(const YamlNode& node, std::string& out);
Wrong parse_boolean(const YamlNode& node, bool& out);
Wrong parse_integer(const YamlNode& node, int64_t& out);
Wrong parse_unsigned(const YamlNode& node, uint64_t& out);
Wrong parse_number(const YamlNode& node, double& out);
Wrong parse_duration(const YamlNode& node, Duration& out);

// "is 0.9", "is the text \"0.9\"", "is a list", "has no value": how messages end.
std::string describe(const YamlNode& node);

// 1h, 100ms: the largest unit that leaves no fraction. Requires: whole milliseconds.
std::string duration_text(Duration duration);
// The shortest text that reads back as the same number.
std::string number_text(double value);

}  // namespace eplbd
