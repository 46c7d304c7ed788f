// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "config/config.h"
#include "config/duration.h"
#include "config/keys.h"

namespace eplbd {
namespace {

using Json = nlohmann::ordered_json;

std::string whole(const std::string& pattern) { return "^" + pattern + "$"; }

// Of one value. What a schema cannot say (a duration's range, bytes against characters) the
// description says, or `--check-config`.
Json type_of(bool, Bounds<bool>) { return {{"type", "boolean"}}; }
Json type_of(const std::string&, const Bounds<std::string>& bounds) {
  Json type = {{"type", "string"}};
  if (bounds.min > 0) type["minLength"] = 1;  // a character has up to four bytes
  if (bounds.max < Bounds<std::string>{}.max) type["maxLength"] = bounds.max;
  return type;
}
template <Number T>
Json type_of(T, const Bounds<T>& bounds) {
  Json type = {{"type", std::is_floating_point_v<T> ? "number" : "integer"}};
  if (bounds.min > std::numeric_limits<T>::lowest() || std::is_unsigned_v<T>) {
    type["minimum"] = bounds.min;
  }
  if (!std::is_floating_point_v<T>) type["maximum"] = bounds.max;
  return type;
}
Json type_of(Duration, const Bounds<Duration>&) {
  return {{"type", "string"}, {"pattern", whole(kDurationPattern)}};
}
Json type_of(const std::optional<Duration>&, const Bounds<Duration>&) {
  const std::string words = "(" + std::string(kAutomatic) + "|" + kDurationPattern + ")";
  return {{"type", "string"}, {"pattern", whole(words)}};
}
template <Named Enum>
Json type_of(Enum, Bounds<Enum>) {
  Json values = Json::array();
  for (const std::string_view name : names(Enum{})) {
    // YAML reads these two as booleans.
    values.push_back(name == "true" || name == "false" ? Json(name == "true") : Json(name));
  }
  return {{"enum", values}};
}
template <typename T>
Json type_of(const std::vector<T>&, const Bounds<T>& bounds) {
  return {{"type", "array"}, {"items", type_of(T{}, bounds)}};
}

template <typename T>
Json value_of(const T& value) {
  if constexpr (Named<T>)
    return to_string(value);
  else
    return value;
}
Json value_of(Duration value) { return duration_text(value); }
Json value_of(const std::optional<Duration>& value) {
  return value ? duration_text(*value) : std::string(kAutomatic);
}

std::string range_of(const Bounds<Duration>& bounds) {
  return ", " + duration_text(bounds.min) + " to " + duration_text(bounds.max);
}
template <typename T>
std::string range_of(const Bounds<T>&) {
  return "";
}

class Schema {
 public:
  template <typename T>
  void operator()(const char* name, const T& value, const char* meaning,
                  const BoundsOf<T>& bounds = {}) {
    Json key = type_of(value, bounds);
    key["description"] = meaning + range_of(bounds);
    if (must_be_given(value, bounds)) {
      required.push_back(name);
    } else {
      key["default"] = value_of(value);
    }
    properties[name] = std::move(key);
  }

  template <typename Options>
  void section(const char* name, const Options& options, const char* meaning) {
    Schema inner;
    visit(options, inner);
    if (!inner.required.empty()) required.push_back(name);
    Json key = inner.object();
    key["description"] = meaning;
    properties[name] = std::move(key);
  }

  // A section without a required key may stand there empty.
  Json object() const {
    Json object = {{"type", required.empty() ? Json({"object", "null"}) : Json("object")},
                   {"properties", properties},
                   {"additionalProperties", false}};
    if (!required.empty()) object["required"] = required;
    return object;
  }

  Json properties = Json::object();
  std::vector<std::string> required;
};

}  // namespace

std::string config_schema() {
  const Config standard;
  Schema keys;
  visit(standard, keys);
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                 {"title", "eplbd configuration: one deployment"}};
  schema.update(keys.object());
  return schema.dump(2) + "\n";
}

}  // namespace eplbd
