// What limits updates that the group's reports force, and what a wall clock may do to limits.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "tests/core/decide/rebalancer_fixture.h"

namespace eplbd {
namespace {

using Catch::Matchers::Contains;

struct RailsFixture : RebalancerFixture {
  // The group says that it runs this, with expert 0 nowhere.
  ObserveResult report_broken(PlacementId id, const Placement& placement) {
    std::vector<int32_t> map = placement.map();
    std::ranges::replace(map, 0, 1);
    return report(id, Placement(topology, std::move(map)));
  }
  bool names(ProblemKind kind) const {
    return std::ranges::count(rebalancer.problems(at(time)), kind, &Problem::kind) > 0;
  }
};

TEST_CASE_METHOD(RailsFixture,
                 "A group that reports each placement broken is mended ever less often",
                 "[rails]") {
  options.trigger.imbalance = 50;
  options.trigger.settle = 49;
  rebalancer.set_options(options, at(0));
  report_broken({}, Placement::initial(topology));
  std::vector<double> times;
  PlacementUpdate newest;
  newest.placement = Placement::initial(topology);
  for (int second = 0; second < 1200; ++second) {
    send_counts();
    report_broken(newest.id, newest.placement);
    const Decision decision = decide();
    if (!decision.update) {
      CHECK(decision.verdict == Verdict::cooling_down);
      CHECK(names(ProblemKind::broken_map));
      continue;
    }
    CHECK(decision.update->reason == UpdateReason::repaired);
    CHECK_FALSE(find_violation(topology, decision.update->placement));
    REQUIRE(rebalancer.record(decision));
    times.push_back(time);
    newest = *decision.update;
    publisher.running = newest.id;
  }
  REQUIRE(times.size() == 8);  // after 0, 5, 15, 35, 75, 155, 315 and 635 seconds
  for (size_t i = 1; i < times.size(); ++i) CHECK(times[i] - times[i - 1] >= 5 * (1 << (i - 1)));
  report(newest.id, newest.placement);
  CHECK_FALSE(names(ProblemKind::broken_map));
}

TEST_CASE_METHOD(RailsFixture, "A second mend is within the limits", "[rails]") {
  options.limits.updates_per_hour = 1;
  rebalancer.set_options(options, at(0));
  report_broken({}, Placement::initial(topology));
  send_counts();
  const Decision first = decide();
  REQUIRE(first.update);
  rebalancer.record(first);
  publisher.running = first.update->id;
  time += 60;
  send_counts();
  report_broken(first.update->id, first.update->placement);
  CHECK(decide().verdict == Verdict::rate_limited);
}

TEST_CASE_METHOD(RailsFixture, "The pause is remembered over a restart", "[rails]") {
  report_broken({}, Placement::initial(topology));
  const Decision first = decide();
  REQUIRE(first.update);
  rebalancer.record(first);
  Rebalancer again(topology, options, at(time + 1), rebalancer.state());
  again.observe(reporter.report(topology, time + 1, first.update->id,
                                Placement(topology, std::vector<int32_t>(160, 3))),
                at(time + 1));
  again.advance(at(time + 1));
  CHECK(again.decide(at(time + 1)).verdict == Verdict::cooling_down);
  again.advance(at(time + 6));
  CHECK(again.decide(at(time + 6)).verdict == Verdict::update);
}

TEST_CASE_METHOD(RailsFixture,
                 "What is adopted goes out after a pause that doubles, restarts or not",
                 "[rails]") {
  std::optional<RebalancerState> saved;
  std::vector<double> told;
  const double began = time;
  for (uint64_t number = 1; time < began + 100; ++number) {
    Rebalancer again(topology, options, at(time), saved);
    const PlacementId id{1'700'000'000 + number, number};
    again.observe(reporter.report(topology, time, id, Placement::initial(topology)), at(time));
    again.advance(at(time));
    REQUIRE(again.seconds_to_adopted(at(time)));
    if (*again.seconds_to_adopted(at(time)) == 0) {
      again.tell_adopted(at(time));
      CHECK_FALSE(again.seconds_to_adopted(at(time)));
      told.push_back(time - began);
    }
    saved = again.state();
    time += 1;
  }
  CHECK(told == std::vector<double>{0, 5, 15, 35, 75});

  SECTION("a clock set back meanwhile makes it no longer than that") {
    Now back = at(time);
    back.unix_seconds -= 6e7;
    const Rebalancer again(topology, options, back, saved);
    CHECK(*again.seconds_to_adopted(back) <= 80);
  }
  SECTION("an hour without forgets it") {
    saved->adopted.unix_seconds -= 7200;
    Rebalancer again(topology, options, at(time), saved);
    again.tell_adopted(at(time));
    CHECK(again.state().adopted.pause_seconds == 5);
  }
}

TEST_CASE_METHOD(RailsFixture, "A pause of an operator holds mends, too", "[rails]") {
  rebalancer.pause(0);
  report_broken({}, Placement::initial(topology));
  CHECK(decide().verdict == Verdict::paused);
  CHECK(names(ProblemKind::broken_map));
  rebalancer.resume();
  CHECK(decide().verdict == Verdict::update);
}

TEST_CASE_METHOD(RailsFixture, "A GPU that the group emptied is filled when an operator says so",
                 "[rails]") {
  std::vector<int32_t> map = Placement::initial(topology).map();
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    std::fill_n(map.begin() + layer * topology.slots + 35, 5, kNoExpert);
  }
  options.trigger.imbalance = 50;
  options.trigger.settle = 49;
  rebalancer.set_options(options, at(0));
  report({}, Placement(topology, map));
  CHECK(rebalancer.gpus_down() == std::vector<int32_t>{7});
  CHECK(names(ProblemKind::empty_gpu));
  send_counts();
  CHECK(decide().verdict == Verdict::balanced);  // whoever restarts with whatever state:
  const Rebalancer restarted(topology, options, at(time), rebalancer.state());
  CHECK(restarted.gpus_down() == std::vector<int32_t>{7});

  rebalancer.fill_again(7);
  CHECK_FALSE(names(ProblemKind::empty_gpu));
  const Decision filled = decide();
  REQUIRE(filled.update);
  CHECK(filled.update->reason == UpdateReason::gpu);
  CHECK(filled.update->gpus_down.empty());
  CHECK_FALSE(find_violation(topology, filled.update->placement));
}

TEST_CASE_METHOD(RailsFixture, "What runs under our name, but is not ours, gets a name of its own",
                 "[rails]") {
  options.trigger.imbalance = 50;
  options.trigger.settle = 49;
  const Decision first = publish_and_apply();
  rebalancer.set_options(options, at(time));
  std::vector<int32_t> map = first.update->placement.map();
  std::rotate(map.begin(), map.begin() + 5, map.begin() + 40);
  report(first.update->id, Placement(topology, map));
  CHECK(names(ProblemKind::nameless_placement));
  const Decision renamed = decide();
  REQUIRE(renamed.update);
  CHECK(renamed.update->reason == UpdateReason::recovered);
  CHECK(renamed.update->placement.map() == map);
  CHECK(renamed.update->moves.empty());
  CHECK(renamed.update->id == PlacementId{first.update->id.term, 2});
}

TEST_CASE_METHOD(RailsFixture, "Limits go by time that passed, whatever becomes of the clock",
                 "[rails]") {
  options.limits.updates_per_hour = 1;
  rebalancer.set_options(options, at(0));
  publish_and_apply();
  publisher.counts = as_counts(skewed_loads(topology, 9));
  const auto verdict_at = [&](double ahead) {
    send_counts();
    Now now = at(time);
    now.unix_seconds += ahead;
    rebalancer.advance(now);
    return rebalancer.decide(now).verdict;
  };
  time += 20;
  CHECK(verdict_at(0) == Verdict::rate_limited);
  CHECK(verdict_at(6e7) == Verdict::rate_limited);  // the hour did not pass
  CHECK(verdict_at(-6e7) == Verdict::rate_limited);
  time += 3600;
  verdict_at(-6e7);                            // after such a gap counts begin anew
  CHECK(verdict_at(-6e7) == Verdict::update);  // it did
}

TEST_CASE_METHOD(RailsFixture, "A pause lasts as long as it was to, whatever becomes of the clock",
                 "[rails]") {
  rebalancer.pause(at(time).unix_seconds + 100);
  Now now = at(time);
  now.unix_seconds -= 6e7;
  rebalancer.advance(now);
  CHECK(rebalancer.paused(now));
  now = at(time + 101);
  now.unix_seconds -= 6e7;
  rebalancer.advance(now);
  CHECK_FALSE(rebalancer.paused(now));
}

TEST_CASE_METHOD(RailsFixture, "The name of an update that was not carried out is not used again",
                 "[rails]") {
  send_counts();
  const Decision decision = decide();
  REQUIRE(decision.update);
  rebalancer.give_up(decision);
  const Decision next = decide();
  REQUIRE(next.update);
  CHECK(next.update->id > decision.update->id);
  CHECK(next.update->id.version == decision.update->id.version + 1);
}

TEST_CASE_METHOD(RailsFixture, "A clock in milliseconds is named with whose it is", "[rails]") {
  for (int i = 0; i < 30; ++i) {
    time += 1;
    CountsReport report = publisher.report(0);
    report.ts = (1'700'000'000.0 + time) * 1000;
    report.since = report.ts - 1000;
    rebalancer.ingest(report, at(time));
  }
  const std::vector<Problem> problems = rebalancer.problems(at(time));
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].kind == ProblemKind::worker_clock);
  CHECK_THAT(problems[0].text, Contains("dp0") && Contains("1000"));
}

TEST_CASE_METHOD(RailsFixture, "A reload of the window keeps what cells hold above 32 bits",
                 "[rails]") {
  publisher.counts.assign(publisher.counts.size(), 1'000'000'000);
  publisher.counts[3] = 4'000'000'000;
  for (int i = 0; i < 8; ++i) send_counts();
  const std::vector<double> before = rebalancer.loads(at(time));
  REQUIRE(before[3] > 5e9);
  const std::optional<Duration> half_lives[] = {std::chrono::seconds(20), std::nullopt,
                                                std::chrono::seconds(7)};
  for (const auto half_life : half_lives) {
    options.window.half_life = half_life;
    rebalancer.set_options(options, at(time));
    const std::vector<double> after = rebalancer.loads(at(time));
    for (const size_t cell : {0, 3, 40}) CHECK(after[cell] == Approx(before[cell]));
  }
}

}  // namespace
}  // namespace eplbd
