// The keys that the parser knows against what is written about them.
// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "config/config.h"
#include "tests/paths.h"

namespace eplbd {
namespace {

std::string contents(const std::string& path) {
  std::ifstream stream(path);
  REQUIRE(stream);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// What the parser itself says that it knows in a section, when it meets a key unlike all of them.
std::vector<std::string> keys_known_in(const std::string& section) {
  std::string text = "qqqqqqqqqq: 1\n";
  if (!section.empty()) {
    text = section == "counts" || section == "placements"
               ? "endpoints: {" + section + ": {qqqqqqqqqq: 1}}\n"
               : section + ": {qqqqqqqqqq: 1}\n";
  }
  try {
    parse_config(text, "F", Require::rules_only);
  } catch (const ConfigError& error) {
    const std::string mark = "known here: ";
    const std::string& message = error.problems().at(0).message;
    REQUIRE(message.find(mark) != std::string::npos);
    std::istringstream list(message.substr(message.find(mark) + mark.size()));
    std::vector<std::string> keys;
    for (std::string key; std::getline(list >> std::ws, key, ',');) keys.push_back(key);
    return keys;
  }
  FAIL("accepted an unknown key");
  return {};
}

// deployment, topology.layers, endpoints.counts.bind ...
std::vector<std::string> all_keys() {
  std::vector<std::string> keys;
  for (const std::string& top : keys_known_in("")) {
    if (top == "deployment" || top == "mode") {
      keys.push_back(top);
      continue;
    }
    for (const std::string& key : keys_known_in(top)) {
      keys.push_back(top + "." + key + (top == "endpoints" ? ".bind" : ""));
    }
  }
  return keys;
}

TEST_CASE("The parser knows the keys of the contract", "[config]") {
  CHECK(all_keys().size() == 51);
  CHECK(keys_known_in("counts") == std::vector<std::string>{"bind"});
  CHECK(keys_known_in("placements") == std::vector<std::string>{"bind"});
}

TEST_CASE("Every key is printed, shipped and documented", "[config]") {
  const std::string printed = print_config(Config{});
  const std::string shipped = contents(EPLBD_SOURCE_DIR "/config/eplbd.yaml");
  const std::string documented = contents(EPLBD_SOURCE_DIR "/docs/configuration.md");
  for (const std::string& key : all_keys()) {
    INFO(key);
    const std::string name = key.substr(key.rfind('.') + 1);
    const std::regex line("(^|\\n|\\{) *" + name + ":");
    CHECK(std::regex_search(printed, line));
    CHECK(std::regex_search(shipped, line));
    CHECK(documented.find("`" + key + "`") != std::string::npos);
  }
}

}  // namespace
}  // namespace eplbd
