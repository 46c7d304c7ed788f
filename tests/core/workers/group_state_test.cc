// SPDX-License-Identifier: Apache-2.0
#include "core/workers/group_state.h"

#include "tests/core/decide/rebalancer_fixture.h"

namespace eplbd {
namespace {

TEST_CASE_METHOD(RebalancerFixture, "A reported map without a slot for some expert is mended",
                 "[group]") {
  options.trigger.imbalance = 50;
  options.trigger.settle = 49;
  rebalancer.set_options(options, at(0));
  const std::vector<int32_t> all_zero(static_cast<size_t>(topology.layers) * topology.slots, 0);
  const Placement broken(topology, all_zero);
  REQUIRE(report({}, broken).adopted);
  CHECK(rebalancer.group().broken());

  const Decision decision = publish_and_apply();
  CHECK(find_violation(topology, decision.update->placement) == std::nullopt);
  CHECK_FALSE(rebalancer.group().broken());
  time += 60;
  send_counts();
  CHECK(decide().verdict == Verdict::balanced);
}

TEST_CASE_METHOD(RebalancerFixture, "A broken map is remembered over a restart", "[group]") {
  const std::vector<int32_t> all_zero(static_cast<size_t>(topology.layers) * topology.slots, 0);
  REQUIRE(report({}, Placement(topology, all_zero)).adopted);
  const Rebalancer restarted(topology, options, at(time), rebalancer.state());
  CHECK(restarted.group().broken());
}

TEST_CASE_METHOD(RebalancerFixture, "A reporter of another shape is forgotten once it is silent",
                 "[group]") {
  const Topology other = make_topology(4, 32, 48, 8);
  const Placement map = Placement::initial(other);
  const StateReport foreign = reporter.report(other, time, {}, map);
  REQUIRE(rebalancer.observe(foreign, at(time)).topology_mismatch);
  send_counts();
  CHECK(decide().verdict == Verdict::topology_mismatch);
  time += to_seconds(options.workers.timeout) + 1;
  send_counts();
  CHECK(decide().verdict == Verdict::update);
}

TEST_CASE_METHOD(RebalancerFixture, "A version at the top shuts no later report out", "[group]") {
  const Placement initial = Placement::initial(topology);
  const uint64_t top = uint64_t{1} << 62;
  REQUIRE(report({5, top}, initial).adopted);
  const Decision next = publish();
  CHECK(next.update->id.version == top + 1);
  const RebalancerState before = rebalancer.state();  // the generation before the newest
  CHECK(report(next.update->id, next.update->placement).applied);
  publisher.counts = as_counts(skewed_loads(topology, 9));
  time += 10;
  const Decision newest = publish();
  Rebalancer went_back(topology, options, at(time), before);
  const StateReport running = reporter.report(topology, time, newest.update->id, initial);
  CHECK(went_back.observe(running, at(time)).adopted);
}

TEST_CASE_METHOD(RebalancerFixture, "A name of ours is good after the clock was set back",
                 "[group]") {
  const Decision decision = publish();
  Now corrected = at(time + 1);
  corrected.unix_seconds -= 2.0 * 365 * 86400;
  const StateReport report = reporter.report(topology, time, decision.update->id,
                                             decision.update->placement, WorkerStatus::applied);
  CHECK(rebalancer.observe(report, corrected).applied);
}

TEST_CASE_METHOD(RebalancerFixture, "A slot out of range is empty, and named until it is gone",
                 "[group]") {
  std::vector<int32_t> map = Placement::initial(topology).map();
  map[41] = 32;
  Reporter other;
  StateReport odd = reporter.report(topology, time, {}, Placement::initial(topology));
  odd.physical_to_logical = packed(map);
  CHECK(rebalancer.observe(odd, at(time)).adopted);
  REQUIRE(rebalancer.group().broken());
  CHECK_THAT(*rebalancer.group().broken(),
             Catch::Contains("dp0-state reports 0.0 ") &&
                 Catch::Contains("layer 1: slot 1 holds expert 32, of 32"));
  CHECK(rebalancer.group().in_force().layer(1)[1] == kNoExpert);
  report({}, Placement::initial(topology));
  CHECK_FALSE(rebalancer.group().broken());
}

TEST_CASE_METHOD(RebalancerFixture, "A GPU that is empty in some layers breaks a rule", "[group]") {
  std::vector<int32_t> map = Placement::initial(topology).map();
  std::fill_n(map.begin() + 35, 5, kNoExpert);  // the last GPU of the first layer: 0..7 come twice
  report({}, Placement(topology, map));
  REQUIRE(rebalancer.group().broken());
  CHECK(rebalancer.group().empty_gpus().empty());
}

TEST_CASE_METHOD(RebalancerFixture, "A GPU that the group empties is down until it reports weights",
                 "[group]") {
  const auto without = [&](std::vector<int32_t> map, int32_t gpu) {
    for (int32_t layer = 0; layer < topology.layers; ++layer) {
      std::fill_n(map.begin() + layer * topology.slots + gpu * 5, 5, kNoExpert);
    }
    return Placement(topology, std::move(map));
  };
  const GroupState& group = rebalancer.group();
  const Placement initial = Placement::initial(topology);
  report({}, without(initial.map(), 7));
  CHECK(group.empty_gpus() == std::vector<int32_t>{7});
  CHECK_FALSE(group.broken());  // its experts lie elsewhere, too
  time += 1;
  report({}, initial);
  CHECK(group.empty_gpus().empty());
  // Its experts lie nowhere else: down, and broken.
  report({}, without(initial.map(), 2));
  CHECK(group.empty_gpus() == std::vector<int32_t>{2});
  CHECK(group.broken());
  // All of it: that is no statement about GPUs.
  report({}, Placement(topology, std::vector<int32_t>(initial.map().size(), kNoExpert)));
  CHECK(group.empty_gpus().empty());
  CHECK(group.broken());
}

TEST_CASE_METHOD(RebalancerFixture, "Rows of the base and of the new map are progress", "[group]") {
  const Decision decision = publish();
  const Placement& next = decision.update->placement;
  const Placement initial = Placement::initial(topology);
  std::vector<int32_t> map = initial.map();
  std::copy_n(next.map().begin(), 2 * topology.slots, map.begin());
  const Placement between(topology, map);
  const ObserveResult result = report({}, between, WorkerStatus::applying);
  CHECK_FALSE(result.adopted);
  CHECK(rebalancer.group().pending());
  CHECK(rebalancer.group().in_force() == between);
  CHECK(rebalancer.group().running() == PlacementId{});
  // Rows that went back are as much of it.
  report({}, initial, WorkerStatus::applying);
  CHECK(rebalancer.group().in_force() == initial);
  // A row of neither is another map.
  map[0] = (map[0] + 1) % 32;
  CHECK(report({}, Placement(topology, map), WorkerStatus::applying).adopted);
  CHECK(report(decision.update->id, next, WorkerStatus::applied).applied);
}

TEST_CASE_METHOD(RebalancerFixture,
                 "Rows of an update that was superseded are told of once, not each", "[group]") {
  const Decision first = publish();
  std::vector<int32_t> map = Placement::initial(topology).map();
  auto row_of_the_first_comes = [&, layer = 0]() mutable {
    const auto begin = first.update->placement.map().begin() + layer * topology.slots;
    std::copy_n(begin, topology.slots, map.begin() + layer * topology.slots);
    ++layer;
    return report({}, Placement(topology, map), WorkerStatus::applying);
  };
  REQUIRE_FALSE(row_of_the_first_comes().adopted);
  const Decision second = rebalancer.plan_import(Placement::initial(topology), at(time));
  REQUIRE(second.update);
  REQUIRE(rebalancer.record(second));
  for (int i = 0; i < 2; ++i) {
    const ObserveResult result = row_of_the_first_comes();
    CHECK(result.adopted);
    CHECK(result.detail.empty());
    CHECK(rebalancer.group().in_force().map() == map);
  }
  CHECK_FALSE(report({}, first.update->placement, WorkerStatus::idle).detail.empty());
}

TEST_CASE_METHOD(RebalancerFixture, "A group that applies for ever is overdue all the time",
                 "[group]") {
  const Decision decision = publish();
  int failures = 0;
  for (int second = 0; second < 300; ++second) {
    time += 1;
    report({}, Placement::initial(topology), WorkerStatus::applying);
    failures += rebalancer.advance(at(time)).failed;
    const Decision again = rebalancer.decide(at(time));
    if (again.publish_again) rebalancer.record(again);
    CHECK(rebalancer.group().overdue() == second >= 119);
  }
  CHECK(failures == 1);
  report(decision.update->id, decision.update->placement, WorkerStatus::applied);
  CHECK_FALSE(rebalancer.group().overdue());
}

TEST_CASE_METHOD(RebalancerFixture, "Another map under our name leaves what went out by that name",
                 "[group]") {
  const Decision decision = publish_and_apply();
  std::vector<int32_t> map = decision.update->placement.map();
  std::swap(map[0], map[39]);
  CHECK(report(decision.update->id, Placement(topology, map)).adopted);
  CHECK(rebalancer.group().nameless());
  CHECK(rebalancer.group().in_force().map() == map);
  CHECK(rebalancer.group().published().placement == decision.update->placement);
  CHECK_FALSE(report(decision.update->id, Placement(topology, map)).adopted);  // told once
  report(decision.update->id, decision.update->placement);
  CHECK_FALSE(rebalancer.group().nameless());
}

TEST_CASE_METHOD(RebalancerFixture, "No time that applying cannot take is believed", "[group]") {
  for (const double said : {-1.0, 1.7e308, std::numeric_limits<double>::quiet_NaN()}) {
    RebalancerFixture group;
    const Decision decision = group.publish();
    group.time += 2;
    StateReport applied = group.reporter.report(group.topology, group.time, decision.update->id,
                                                decision.update->placement, WorkerStatus::applied);
    applied.apply_seconds = said;
    CHECK(group.rebalancer.observe(applied, at(group.time)).apply_seconds == Approx(2));
  }
}

TEST_CASE("A log that was replaced is what runs, until a group reports", "[group]") {
  const Topology topology = make_topology(2, 4, 6, 2);
  PlacementLog log;
  log.initial = log.published.placement = Placement::initial(topology);
  GroupState group(topology, log);
  PlacementUpdate update;
  update.id = {5, 1};
  update.placement = Placement(topology, {0, 1, 2, 3, 0, 2, 0, 1, 2, 3, 0, 2});
  group.publish(update, at(0).steady);
  REQUIRE(group.pending());

  const Placement emptied(topology, {0, 1, 2, -1, -1, -1, 0, 1, 2, -1, -1, -1});
  log.published = {};
  log.published.id = {7, 3};
  log.published.placement = emptied;
  group.take_up({1});
  CHECK_FALSE(group.pending());
  CHECK_FALSE(group.failed());
  CHECK_FALSE(group.nameless());
  CHECK(group.running() == PlacementId{7, 3});
  CHECK(group.in_force() == emptied);
  CHECK(group.broken());  // expert 3 has no slot
  log.published.placement = update.placement;
  group.take_up({});
  CHECK_FALSE(group.broken());
}

}  // namespace
}  // namespace eplbd
