// SPDX-License-Identifier: Apache-2.0
#include "daemon/rejections.h"

#include <catch2/catch.hpp>

#include "tests/core/shapes.h"

namespace eplbd {
namespace {

const Topology kTopology = make_topology(4, 16, 20, 4);

}  // namespace

TEST_CASE("who is rejected again and again is a problem that names them, until they stop") {
  Rejections rejections;
  const Rejection wrong{RejectReason::wrong_shape, "dp3", "counts", {}, 512, 256};
  rejections.add(wrong, "10.0.0.7", kTopology, at(1));
  CHECK(rejections.problems(std::chrono::seconds(30), at(2)).empty());  // once is an accident
  rejections.add(wrong, "10.0.0.7", kTopology, at(3));
  const auto problems = rejections.problems(std::chrono::seconds(30), at(5));
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].kind == ProblemKind::messages_rejected);
  CHECK(
      problems[0].text ==
      "2 messages of dp3 (10.0.0.7) were dropped, the last 2 s ago: counts has 512 bytes, wants 4 "
      "x 16 x 4 = 256: int64? (wrong_shape)");
  CHECK(rejections.problems(std::chrono::seconds(30), at(33)).empty());
}

TEST_CASE("however many names are rejected, as many as fit are kept: the newest") {
  Rejections rejections;
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "x" + std::to_string(i);
    rejections.add({RejectReason::wrong_engine, name}, "", kTopology, at(i));
  }
  CHECK(rejections.senders().size() == 16);
  CHECK(rejections.senders().back().name() == "x999");
}

}  // namespace eplbd
