// SPDX-License-Identifier: Apache-2.0
#include "config/yaml_node.h"

#include <catch2/catch.hpp>

namespace eplbd {
namespace {

TEST_CASE("The tree keeps lines, repeated keys and whether a value was quoted", "[config]") {
  std::vector<ConfigProblem> problems;
  const YamlNodePtr root = parse_yaml("a: 1\n\nb:\n  - \"x\"\n  - y\na: 2\n", problems);
  REQUIRE(problems.empty());
  REQUIRE(root->kind == YamlNode::Kind::map);
  REQUIRE(root->keys.size() == 3);
  CHECK(root->keys[0]->text == "a");
  CHECK(root->keys[1]->line == 3);
  CHECK(root->keys[2]->line == 6);
  CHECK(root->values[2]->text == "2");
  const YamlNode& list = *root->values[1];
  REQUIRE(list.kind == YamlNode::Kind::list);
  CHECK_FALSE(list.values[0]->plain);
  CHECK(list.values[1]->plain);
  CHECK(list.values[1]->line == 5);
}

TEST_CASE("Quoted text stays on its line and reads back", "[config]") {
  const std::string text = "a \"b\" \\ \n\t\x1b[31m ä";
  const std::string line = quoted(text);
  CHECK(line == "\"a \\\"b\\\" \\\\ \\x0a\\x09\\x1b[31m ä\"");
  std::vector<ConfigProblem> problems;
  const YamlNodePtr node = parse_yaml(line, problems);
  REQUIRE(problems.empty());
  CHECK(node->text == text);
}

}  // namespace
}  // namespace eplbd
