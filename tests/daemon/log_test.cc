// SPDX-License-Identifier: Apache-2.0
#include "daemon/log.h"

#include <catch2/catch.hpp>

using namespace eplbd;

TEST_CASE("what strangers cause is logged at a limited rate, and told how much was left out") {
  LogLimit limit(std::chrono::seconds(10), 2);
  const std::chrono::steady_clock::time_point start{};
  CHECK(limit.admit(start) == "");
  CHECK(limit.admit(start + std::chrono::seconds(1)) == "");
  for (int i = 2; i < 10; ++i) CHECK_FALSE(limit.admit(start + std::chrono::seconds(i)));
  CHECK(limit.admit(start + std::chrono::seconds(10)) == " (8 more since the last such line)");
  CHECK(limit.admit(start + std::chrono::seconds(10)) == "");
  CHECK_FALSE(limit.admit(start + std::chrono::seconds(19)));
}
