// SPDX-License-Identifier: Apache-2.0
#include "config/nearest.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace eplbd {
namespace {

TEST_CASE("What is few letters away is meant, what is far away is not", "[config]") {
  const std::vector<std::string> known = {"status", "solve", "--for", "--force", "trigger"};
  CHECK(nearest("stats", known) == "status");
  CHECK(nearest("statsu", known) == "status");  // neighbours exchanged
  CHECK(nearest("trigegr", known) == "trigger");
  CHECK(nearest("--fro", known) == "--for");
  CHECK(nearest("--forc", known) == "--for");  // the first of those as near
  CHECK(nearest("solve", known) == "solve");
  CHECK_FALSE(nearest("gpu", known));
  CHECK_FALSE(nearest("", known));
  CHECK_FALSE(nearest(std::string(100000, 's'), known));
  CHECK_FALSE(nearest("status", {}));
}

}  // namespace
}  // namespace eplbd
