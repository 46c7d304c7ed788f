// SPDX-License-Identifier: Apache-2.0
#include "core/model/placement_log.h"

#include <catch2/catch.hpp>

#include "tests/core/shapes.h"

using namespace eplbd;

namespace {

const Topology kTopology = make_topology(2, 4, 6, 2);
constexpr double kDate = 1'700'000'000;

struct LogFixture {
  PlacementLog log;
  LogFixture() {
    log.initial = Placement::initial(kTopology);
    log.published.placement = log.initial;
  }
  PlacementId publish_next(double unix_seconds = kDate) {
    PlacementUpdate update;
    update.id = log.next_id(unix_seconds);
    update.placement = log.initial;
    update.moves = {{0, 1, 2, 3}};
    log.publish(update);
    return update.id;
  }
};

}  // namespace

TEST_CASE_METHOD(LogFixture, "names go up, whatever the clock does") {
  CHECK(publish_next() == PlacementId{1'700'000'000, 1});
  CHECK(publish_next(kDate - 500) == PlacementId{1'700'000'000, 2});
  log.heard({1'800'000'000, 7});
  CHECK(log.next_id(kDate) == PlacementId{1'800'000'001, 8});
  // Of two that were heard, the next is above the term of one and the version of the other.
  log.heard({1'700'000'001, 41});
  CHECK(publish_next() == PlacementId{1'800'000'001, 42});
  CHECK(log.next_id(kDate) == PlacementId{1'800'000'001, 43});
}

TEST_CASE_METHOD(LogFixture, "eight earlier placements are kept, without their moves") {
  for (int i = 0; i < 12; ++i) publish_next();
  CHECK(log.published.id.version == 12);
  CHECK(log.published.moves.size() == 1);
  REQUIRE(log.history.size() == 8);
  CHECK(log.history.front().id.version == 11);
  CHECK(log.history.front().moves.empty());
  REQUIRE(log.find(4));
  CHECK(log.find(4)->id.version == 4);
  CHECK(log.find(12) == &log.published);
  CHECK_FALSE(log.find(3));
}

TEST_CASE_METHOD(LogFixture, "what is adopted is published from then on") {
  const Placement theirs(kTopology, {0, 1, 2, 3, 0, 1, 3, 2, 1, 0, 3, 2});
  log.adopt({}, theirs, kDate, {});  // workers that start from a map of their own
  CHECK(log.initial == theirs);
  CHECK(log.published.placement == theirs);
  CHECK(log.published.reason == UpdateReason::initial);
  const PlacementId first = publish_next();
  log.adopt({1'900'000'000, 9}, theirs, kDate, {1});
  CHECK(log.published.reason == UpdateReason::recovered);
  CHECK(log.published.gpus_down == std::vector<int32_t>{1});
  CHECK(log.history.front().id == first);
  CHECK(log.map_of(first) == &log.history.front().placement);
  CHECK(log.map_of({}) == &log.initial);
  CHECK(log.map_of({first.term + 1, first.version}) == nullptr);
  CHECK(log.next_id(kDate) == PlacementId{1'900'000'001, 10});
}

TEST_CASE_METHOD(LogFixture, "what was adopted waits, and is kept only once others know of it") {
  const PlacementId ours = publish_next();
  CHECK_FALSE(log.waits);
  log.adopt({1'900'000'000, 9}, log.initial, kDate, {});
  CHECK(log.waits);
  log.adopt({1'900'000'001, 10}, log.initial, kDate, {});
  CHECK(log.history.front().id == ours);
  log.waits = false;
  log.adopt({1'900'000'002, 11}, log.initial, kDate, {});
  CHECK(log.history.front().id == PlacementId{1'900'000'001, 10});
  publish_next();
  CHECK_FALSE(log.waits);
  CHECK(log.history.front().id == PlacementId{1'900'000'002, 11});
}

TEST_CASE_METHOD(LogFixture, "a name that was given up is nobody's") {
  const PlacementId first = publish_next();
  log.give_up({first.term, 2});
  CHECK(publish_next() == PlacementId{first.term, 3});
}

TEST_CASE("a placement's name as text") { CHECK(to_text(PlacementId{17, 4}) == "17.4"); }
