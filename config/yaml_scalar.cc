// SPDX-License-Identifier: Apache-2.0
#include "config/yaml_scalar.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "config/duration.h"
#include "core/model/utf8.h"

namespace eplbd {
namespace {

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

std::string text_of(int64_t value) { return std::to_string(value); }
std::string text_of(uint64_t value) { return std::to_string(value); }
std::string text_of(double value) { return number_text(value); }
std::string text_of(Duration value) { return duration_text(value); }

template <typename T, typename B>
Wrong check_bounds(T value, const B& bounds) {
  if (value < T{bounds.min})
    return "must be at least " + text_of(T{bounds.min}) + ", is " + text_of(value);
  if (value > T{bounds.max})
    return "must be at most " + text_of(T{bounds.max}) + ", is " + text_of(value);
  return {};
}

// `Wide`: what the text is read as, so that a number beyond T is told its limit.
template <typename Wide, typename T>
Wrong parse_whole(const YamlNode& node, T& out, const Bounds<T>& bounds) {
  if (!is_plain_scalar(node)) return wrong("a whole number", node);
  if (has_leading_zero(node.text)) return wrong("a whole number without leading zeros", node);
  Wide value{};
  const std::errc error = from_text(node.text, value);
  if (error == std::errc::result_out_of_range) return wrong("a smaller number", node);
  if (error != std::errc{}) {
    const bool negative = std::is_unsigned_v<T> && node.text.starts_with('-');
    return wrong(negative ? "at least 0" : "a whole number", node);
  }
  if (Wrong outside = check_bounds(value, bounds)) return outside;
  out = static_cast<T>(value);
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
    text.resize(end);
    text += "...";
  }
  if (node.plain && find_unprintable(text, "\t\r\n") == text.size()) return "is " + text;
  return "is the text " + quoted(text);
}

Wrong parse(const YamlNode& node, std::string& out, Bounds<std::string> bounds) {
  if (node.kind == YamlNode::Kind::nothing) {
    return "has no value: write \"\" for none, or leave the line out for the default";
  }
  if (node.kind != YamlNode::Kind::scalar) return wrong("text", node);
  if (!is_printable_utf8(node.text)) {
    return wrong("one line of UTF-8 without control characters", node);
  }
  const size_t size = node.text.size();
  if (size < bounds.min || size > bounds.max) {
    const std::string least = bounds.min == 0 ? "at most " : std::to_string(bounds.min) + " to ";
    return "must have " + least + std::to_string(bounds.max) + " bytes, has " +
           std::to_string(size);
  }
  out = node.text;
  return {};
}

Wrong parse(const YamlNode& node, bool& out, Bounds<bool>) {
  if (!is_plain_scalar(node) || (node.text != "true" && node.text != "false")) {
    return wrong("true or false", node);
  }
  out = node.text == "true";
  return {};
}

Wrong parse(const YamlNode& node, int32_t& out, Bounds<int32_t> bounds) {
  return parse_whole<int64_t>(node, out, bounds);
}

Wrong parse(const YamlNode& node, int64_t& out, Bounds<int64_t> bounds) {
  return parse_whole<int64_t>(node, out, bounds);
}

Wrong parse(const YamlNode& node, uint64_t& out, Bounds<uint64_t> bounds) {
  return parse_whole<uint64_t>(node, out, bounds);
}

Wrong parse(const YamlNode& node, double& out, Bounds<double> bounds) {
  if (!is_plain_scalar(node)) return wrong("a number", node);
  if (has_leading_zero(node.text)) return wrong("a number without leading zeros", node);
  double value = 0;
  const std::errc error = from_text(node.text, value);
  // from_chars takes "nan" and "inf" for numbers; ".nan" is not even one for it.
  if (error != std::errc{} || !std::isfinite(value)) return wrong("a finite number", node);
  if (Wrong outside = check_bounds(value, bounds)) return outside;
  out = value;
  return {};
}

Wrong parse(const YamlNode& node, Duration& out, Bounds<Duration> bounds) {
  Duration value{};
  std::string_view text;
  if (node.kind == YamlNode::Kind::scalar) text = node.text;
  if (const auto expected = parse_duration(text, value)) return *expected + ", " + describe(node);
  if (Wrong outside = check_bounds(value, bounds)) return outside;
  out = value;
  return {};
}

Wrong parse(const YamlNode& node, std::optional<Duration>& out, Bounds<Duration> bounds) {
  out.reset();
  if (node.kind == YamlNode::Kind::scalar && node.text == kAutomatic) return {};
  return parse(node, out.emplace(), bounds);
}

Wrong parse_name(const YamlNode& node, std::span<const std::string_view> names, size_t& index) {
  std::string expected;
  for (size_t i = 0; i < names.size(); ++i) {
    if (node.kind == YamlNode::Kind::scalar && node.text == names[i]) {
      index = i;
      return {};
    }
    expected += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + std::string(names[i]);
  }
  return wrong(expected, node);
}

std::string number_text(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return {text, end};
}

}  // namespace eplbd
