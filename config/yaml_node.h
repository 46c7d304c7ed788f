// YAML text as a tree with lines, built from yaml-cpp's events: its own tree forgets where a
// missing or repeated key stands, and takes "yes", "010" and ".nan" for values.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace eplbd {

struct YamlNode;
using YamlNodePtr = std::shared_ptr<const YamlNode>;  // shared where the text has an alias

struct YamlNode {
  enum class Kind { nothing, scalar, list, map };
  Kind kind = Kind::nothing;
  int line = 1;
  std::string text;               // of a scalar
  bool plain = true;              // a scalar without quotes: only these can be numbers or booleans
  std::vector<YamlNodePtr> keys;  // of a map, in the order of the text, repeated ones too
  std::vector<YamlNodePtr> values;  // of a map or list
};

// A larger text is no configuration.
inline constexpr size_t kMaxConfigBytes = size_t{1} << 20;

// The one document in `text`. What keeps it from being read (bytes that are not UTF-8, tabs as
// indentation, a syntax error, a second document, over 1 MiB or 16 levels) is added to `problems`,
// and nothing returned. An empty text is an empty map.
YamlNodePtr parse_yaml(std::string_view text, std::vector<ConfigProblem>& problems);

// `text` in double quotes as YAML reads it back: on one line, nothing that moves a terminal.
std::string quoted(std::string_view text);

}  // namespace eplbd
