// One YAML value -> a number, boolean, duration, text or name, and what is wrong with it if it is
// none. Strict where YAML 1.1 surprises: 010 is no octal, yes no boolean, .nan and .inf no numbers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "config/keys.h"
#include "config/yaml_node.h"
#include "core/model/names.h"
#include "core/model/time.h"

namespace eplbd {

// Each sets `out` and returns nothing, or returns what is wrong as "must be ..., is ...".
using Wrong = std::optional<std::string>;
Wrong parse(const YamlNode& node, std::string& out, Bounds<std::string> bounds);
Wrong parse(const YamlNode& node, bool& out, Bounds<bool> bounds);
Wrong parse(const YamlNode& node, int32_t& out, Bounds<int32_t> bounds);
Wrong parse(const YamlNode& node, int64_t& out, Bounds<int64_t> bounds);
Wrong parse(const YamlNode& node, uint64_t& out, Bounds<uint64_t> bounds);
Wrong parse(const YamlNode& node, double& out, Bounds<double> bounds);
Wrong parse(const YamlNode& node, Duration& out, Bounds<Duration> bounds);
Wrong parse(const YamlNode& node, std::optional<Duration>& out, Bounds<Duration> bounds);

Wrong parse_name(const YamlNode& node, std::span<const std::string_view> names, size_t& index);
template <Named Enum>
Wrong parse(const YamlNode& node, Enum& out, Bounds<Enum>) {
  constexpr auto kNames = names(Enum{});
  size_t index = static_cast<size_t>(out);
  Wrong wrong = parse_name(node, kNames, index);
  out = static_cast<Enum>(index);
  return wrong;
}

// "is 0.9", "is the text \"0.9\"", "is a list", "has no value": how messages end.
std::string describe(const YamlNode& node);

// The shortest text that reads back as the same number.
std::string number_text(double value);

}  // namespace eplbd
