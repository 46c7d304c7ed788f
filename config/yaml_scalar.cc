// SPDX-License-Identifier: Apache-2.0
#include "config/yaml_scalar.h"

#include <charconv>
#include <cmath>
#include <string_view>

namespace eplbd {
namespace {

struct Unit {
  std::string_view name;
  int64_t milliseconds;
};
// Longest first, so that the largest unit without a fraction is found first.
constexpr Unit kUnits[] = {
    {"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}};

// Far above every range that a key has, and far below an overflow of nanoseconds.
constexpr double kMaxMilliseconds = 1e12;

Wrong wrong(const std::string& expected, const YamlNode& node) {
  return "must be " + expected + ", " + describe(node);
}

bool is_plain_scalar(const YamlNode& node) {
  return node.kind == YamlNode::Kind::scalar && node.plain;
}

// 010 is 8 in YAML 1.1 and 10 in YAML 1.2: nobody can know which was meant.
bool has_leading_zero(std::string_view text) {
  if (!text.empty() && text[0] == '-') text.remove_prefix(1);
  return text.size() > 1 && text[0] == '0' && text[1] >= '0' && text[1] <= '9';
}

template <typename T>
std::errc from_text(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc{}) return error;
  return end == text.data() + text.size() ? std::errc{} : std::errc::invalid_argument;
}

template <typename T>
Wrong parse_whole(const YamlNode& node, T& out) {
  if (!is_plain_scalar(node)) return wrong("a whole number", node);
  if (has_leading_zero(node.text)) {
    return wrong("a whole number without leading zeros", node);
  }
  T value{};
  const std::errc error = from_text(node.text, value);
  if (error == std::errc::result_out_of_range) return wrong("a smaller number", node);
  if (error != std::errc{}) {
    const bool negative = std::is_unsigned_v<T> && node.text.starts_with('-');
    return wrong(negative ? "at least 0" : "a whole number", node);
  }
  out = value;
  return {};
}

}  // namespace

std::string describe(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::nothing:
      return "has no value";
    case YamlNode::Kind::list:
      return "is a list";
    case YamlNode::Kind::map:
      return "is a section";
    case YamlNode::Kind::scalar:
      break;
  }
  constexpr size_t kShown = 60;
  std::string text = node.text;
  if (text.size() > kShown) {
    size_t end = kShown;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    text = text.substr(0, end) + "...";
  }
  if (node.plain && check_utf8(text).ok) return "is " + text;
  return "is the text " + quoted(text);
}

Wrong parse_text(const YamlNode& node, std::string& out) {
  if (node.kind == YamlNode::Kind::nothing) {
    return "has no value: write \"\" for none, or leave the line out for the default";
  }
  if (node.kind != YamlNode::Kind::scalar) return wrong("text", node);
  const bool control = node.text.find_first_of("\t\r\n") != std::string::npos;
  if (control || !check_utf8(node.text).ok) {
    return wrong("one line of UTF-8 without control characters", node);
  }
  out = node.text;
  return {};
}

Wrong parse_boolean(const YamlNode& node, bool& out) {
  if (!is_plain_scalar(node) || (node.text != "true" && node.text != "false")) {
    return wrong("true or false", node);
  }
  out = node.text == "true";
  return {};
}

Wrong parse_integer(const YamlNode& node, int64_t& out) { return parse_whole(node, out); }

Wrong parse_unsigned(const YamlNode& node, uint64_t& out) { return parse_whole(node, out); }

Wrong parse_number(const YamlNode& node, double& out) {
  if (!is_plain_scalar(node)) return wrong("a number", node);
  if (has_leading_zero(node.text)) return wrong("a number without leading zeros", node);
  double value = 0;
  const std::errc error = from_text(node.text, value);
  // from_chars takes "nan" and "inf" for numbers; ".nan" is not even one for it.
  if (error != std::errc{} || !std::isfinite(value)) return wrong("a finite number", node);
  out = value;
  return {};
}

Wrong parse_duration(const YamlNode& node, Duration& out) {
  constexpr const char* kExpected = "a duration with its unit (100ms, 30s, 5m, 2h, 1d)";
  if (node.kind != YamlNode::Kind::scalar) return wrong(kExpected, node);
  const std::string_view text = node.text;
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  double count = 0;
  if (from_text(text.substr(0, digits), count) != std::errc{}) return wrong(kExpected, node);
  for (const Unit& unit : kUnits) {
    if (text.substr(digits) != unit.name) continue;
    const double milliseconds = count * static_cast<double>(unit.milliseconds);
    if (milliseconds > kMaxMilliseconds) return wrong("a shorter duration", node);
    if (milliseconds != std::floor(milliseconds)) return wrong("whole milliseconds", node);
    out = std::chrono::milliseconds(static_cast<int64_t>(milliseconds));
    return {};
  }
  return wrong(kExpected, node);
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

std::string number_text(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return {text, end};
}

}  // namespace eplbd
