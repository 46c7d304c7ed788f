// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/placement_follower.h"

#include <catch2/catch.hpp>

namespace eplbd {
namespace {

using namespace std::chrono_literals;

Topology topology() {
  Topology topology;
  topology.layers = 1;
  topology.logical_experts = 2;
  topology.slots = 4;
  topology.gpus = 2;
  return topology;
}

PlacementUpdate update(const Topology& shape, PlacementId id, std::vector<int32_t> map) {
  PlacementUpdate update;
  update.id = id;
  update.placement = Placement(shape, std::move(map));
  return update;
}

const std::vector<int32_t> kSwapped = {1, 0, 1, 0};
constexpr TimePoint kStart{1h};

TEST_CASE("a placement serves once it is applied, and each change is reported once") {
  const Topology shape = topology();
  PlacementFollower follower(shape, 3s);
  CHECK(follower.take_report_due());  // at start
  CHECK_FALSE(follower.take_report_due());
  follower.on_placement(update(shape, {5, 1}, kSwapped), kStart);
  CHECK(follower.status() == WorkerStatus::applying);
  CHECK(follower.take_report_due());
  CHECK(follower.next_change() == kStart + 3s);
  follower.advance(kStart + 2999ms);
  CHECK(follower.running() == PlacementId{});
  CHECK(follower.serving() == Placement::initial(shape));
  follower.advance(kStart + 3s);
  CHECK(follower.running() == PlacementId{5, 1});
  CHECK(follower.serving().map() == kSwapped);
  CHECK(follower.status() == WorkerStatus::applied);
  CHECK(follower.take_report_due());
  CHECK_FALSE(follower.next_change());
}

TEST_CASE("what is not above what it holds is ignored, a higher term wins over a version") {
  const Topology shape = topology();
  PlacementFollower follower(shape, 0s);
  follower.on_placement(update(shape, {5, 9}, kSwapped), kStart);
  follower.advance(kStart);
  for (const PlacementId old : {PlacementId{5, 9}, PlacementId{5, 8}, PlacementId{4, 99}}) {
    follower.on_placement(update(shape, old, {0, 1, 0, 1}), kStart);
    follower.advance(kStart);
    CHECK(follower.running() == PlacementId{5, 9});
  }
  follower.on_placement(update(shape, {6, 1}, {0, 1, 0, 1}), kStart);
  follower.advance(kStart);
  CHECK(follower.running() == PlacementId{6, 1});
}

TEST_CASE("while it applies one, the newest of those that come waits") {
  const Topology shape = topology();
  PlacementFollower follower(shape, 3s);
  follower.on_placement(update(shape, {5, 1}, kSwapped), kStart);
  follower.on_placement(update(shape, {5, 3}, {0, 1, 1, 0}), kStart + 1s);
  follower.on_placement(update(shape, {5, 2}, {1, 0, 0, 1}), kStart + 2s);
  follower.advance(kStart + 3s);
  CHECK(follower.running() == PlacementId{5, 1});
  CHECK(follower.status() == WorkerStatus::applying);
  follower.advance(kStart + 6s);
  CHECK(follower.running() == PlacementId{5, 3});
}

TEST_CASE("a heartbeat above what it holds makes it subscribe anew, one that differs report") {
  const Topology shape = topology();
  PlacementFollower follower(shape, 3s);
  follower.take_report_due();
  CHECK_FALSE(follower.on_heartbeat({{}, 0, Mode::active}));
  CHECK_FALSE(follower.take_report_due());
  CHECK(follower.on_heartbeat({{5, 1}, 0, Mode::active}));
  follower.on_placement(update(shape, {5, 1}, kSwapped), kStart);
  CHECK_FALSE(follower.on_heartbeat({{5, 1}, 0, Mode::active}));  // on its way
  follower.advance(kStart + 3s);
  follower.take_report_due();
  CHECK_FALSE(follower.on_heartbeat({{0, 0}, 0, Mode::active}));  // a daemon that lost its state
  CHECK(follower.take_report_due());
}

}  // namespace
}  // namespace eplbd
