// Every file in data/config/bad with every message it must get, in NAME.expected: LINE: KEY:
// MESSAGE.
// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "config/config.h"
#include "tests/paths.h"

namespace eplbd {
namespace {

std::string contents(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  REQUIRE(stream);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::string messages_for(const std::string& text, Require require = Require::everything) {
  try {
    parse_config(text, "F", require);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("Every bad file gets exactly its messages", "[config]") {
  const std::filesystem::path folder = EPLBD_SOURCE_DIR "/tests/data/config/bad";
  std::set<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".yaml") files.insert(entry.path());
  }
  REQUIRE(files.size() > 40);
  for (const auto& file : files) {
    INFO(file);
    std::istringstream expected(
        contents(std::filesystem::path(file).replace_extension("expected")));
    std::string wanted;
    for (std::string line; std::getline(expected, line);) {
      wanted += (wanted.empty() ? "F:" : "\nF:") + line;
    }
    CHECK(messages_for(contents(file)) == wanted);
  }
}

TEST_CASE("A problem has its line, key and message", "[config]") {
  try {
    parse_config(
        "deployment: d\ntopology: {layers: 1, logical_experts: 1, slots: 1, gpus: 1}\n"
        "\nmode: idle\n",
        "/etc/eplbd/eplbd.yaml");
    FAIL("accepted");
  } catch (const ConfigError& error) {
    REQUIRE(error.problems().size() == 1);
    CHECK(error.problems()[0].line == 4);
    CHECK(error.problems()[0].key == "mode");
    CHECK(error.what() == std::string("/etc/eplbd/eplbd.yaml:4: mode: must be observe, shadow or "
                                      "active, is idle"));
  }
}

TEST_CASE("A file that cannot be read is a problem, not a crash", "[config]") {
  CHECK_THROWS_WITH(read_config("/nonexistent/eplbd.yaml"),
                    "/nonexistent/eplbd.yaml:1: file: cannot be read: No such file or directory");
  CHECK_THROWS_WITH(read_config("/"), "/:1: file: cannot be read: Is a directory");
}

TEST_CASE("Huge and hostile texts end in a problem, soon", "[config]") {
  CHECK(messages_for(std::string((1 << 20) + 1, '#')) ==
        "F:1: yaml: over 1 MiB: not a configuration file");
  const auto repeated = [](const char* piece, int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += piece;
    return text;
  };
  for (const char* piece :
       {"[", "{", "{a: ", "- ", "? ", "a:\n", "&a ", "\"", "'", "!", "|\n", "%"}) {
    INFO(piece);
    CHECK(messages_for(repeated(piece, 20000)) != "");
  }
  std::string keys;
  for (int i = 0; i < 50000; ++i) keys += "k" + std::to_string(i) + ": 1\n";
  CHECK(messages_for(keys).find("F:50000: k49999: unknown key") != std::string::npos);
  // Nine aliases of nine aliases ...: one node each, however many it would be written out.
  std::string laughs = "a0: &a0 x\n";
  for (int i = 1; i < 40; ++i) {
    const std::string alias = "*a" + std::to_string(i - 1);
    const std::string n = std::to_string(i);
    laughs += "a" + n + ": &a" + n + " [" + alias + ", " + alias + ", " + alias + "]\n";
  }
  CHECK(messages_for(laughs).find("F:40: a39: unknown key") != std::string::npos);
}

TEST_CASE("The shipped file cut at any byte is accepted or has a line for its problem",
          "[config]") {
  const std::string text = contents(EPLBD_SOURCE_DIR "/config/eplbd.yaml");
  for (size_t size = 0; size < text.size(); size += 7) {
    try {
      parse_config(text.substr(0, size), "F");
    } catch (const ConfigError& error) {
      for (const ConfigProblem& problem : error.problems()) {
        CHECK(problem.line >= 1);
        CHECK_FALSE(problem.key.empty());
        CHECK_FALSE(problem.message.empty());
      }
    }
  }
}

}  // namespace
}  // namespace eplbd
