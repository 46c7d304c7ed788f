// What `--check-config` looks for on the machine: files, folders, interfaces.
// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <string>

#include "config/config.h"
#include "tests/daemon/folder.h"

namespace eplbd {
namespace {

// The problems of a file with these lines too, one a line: KEY: MESSAGE.
std::string problems_of(const std::string& more) {
  try {
    parse_config(
        "deployment: d\n"
        "topology: {layers: 2, logical_experts: 4, slots: 8, gpus: 2}\n" +
            more,
        "F", Require::usable);
  } catch (const ConfigError& error) {
    std::string text;
    for (const ConfigProblem& problem : error.problems()) {
      text += problem.key + ": " + problem.message + "\n";
    }
    return text;
  }
  return "";
}

std::string binds(const std::string& address) {
  return "endpoints: {counts: {bind: [\"" + address + "\"]}}\n";
}

TEST_CASE("A secret that is not there, or that anybody may read, is a problem", "[config]") {
  const Folder folder;
  const std::string key = "security: {curve_secret_key: \"" + (folder / "key") + "\"}\n";
  CHECK_THAT(problems_of(key), Catch::Contains("security.curve_secret_key: cannot read") &&
                                   Catch::Contains("No such file"));
  folder.write("key", "secret");
  REQUIRE(chmod((folder / "key").c_str(), 0644) == 0);
  CHECK_THAT(problems_of(key), Catch::Contains("anybody may read this secret"));
  REQUIRE(chmod((folder / "key").c_str(), 0600) == 0);
  CHECK(problems_of(key).empty());
}

TEST_CASE("The folder of authorized keys must be one, but for the service's own", "[config]") {
  const Folder folder;
  folder.write("key", "secret");
  REQUIRE(chmod((folder / "key").c_str(), 0600) == 0);
  const auto with_keys = [&](const std::string& keys) {
    return problems_of("security: {curve_secret_key: \"" + (folder / "key") +
                       "\", authorized_keys: \"" + keys + "\"}\n");
  };
  CHECK(with_keys(folder.path()).empty());
  CHECK_THAT(with_keys(folder / "key"), Catch::Contains("security.authorized_keys: cannot read"));
  CHECK(with_keys("/run/credentials/eplbd.service/keys").empty());
}

TEST_CASE("An address must have its folder, or its interface", "[config]") {
  const Folder folder;
  CHECK(problems_of(binds("ipc://" + (folder / "counts"))).empty());
  CHECK_THAT(problems_of(binds("ipc://" + (folder / "none/counts"))),
             Catch::Contains("there is no folder"));
  CHECK(problems_of(binds("tcp://lo:0")).empty());
  CHECK_THAT(
      problems_of(binds("tcp://no-such-if:0") + "security: {allow_plaintext_remote: true}\n"),
      Catch::Contains("no network interface \"no-such-if\""));
}

}  // namespace
}  // namespace eplbd
