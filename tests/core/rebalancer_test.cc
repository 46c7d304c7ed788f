// SPDX-License-Identifier: Apache-2.0
#include "core/rebalancer.h"

#include <catch2/catch.hpp>
#include <limits>

#include "tests/core/shapes.h"

using namespace eplbd;
using Catch::Matchers::Contains;

namespace {

RebalancerOptions quick_options() {
  RebalancerOptions options;
  options.window.half_life = std::chrono::seconds(5);
  options.trigger.cooldown = std::chrono::seconds(1);
  options.trigger.min_tokens_per_gpu_step = 0;
  return options;
}

// A deployment with one publisher of counts and one worker that reports state.
struct Fixture {
  Topology topology = make_topology(4, 32, 40, 8);
  RebalancerOptions options = quick_options();
  Rebalancer rebalancer{topology, options, at(0)};
  Publisher publisher;
  Reporter reporter;
  double time = 10;  // past the hold of a fresh start

  Fixture() { publisher.counts = as_counts(skewed_loads(topology, 1)); }

  IngestResult send_counts() {
    time += 1;
    return rebalancer.ingest(publisher.report(time), at(time));
  }
  ObserveResult report(PlacementId id, const Placement& map,
                       WorkerStatus status = WorkerStatus::idle) {
    return rebalancer.observe(reporter.report(topology, time, id, map, status), at(time));
  }
  Decision decide() {
    rebalancer.advance(at(time));
    return rebalancer.decide(at(time));
  }
  // Sends counts until a decision is an update, publishes it, and returns it.
  Decision publish() {
    send_counts();
    Decision decision = decide();
    INFO(decision.detail);
    REQUIRE(decision.verdict == Verdict::update);
    REQUIRE(rebalancer.record(decision, at(time)));
    publisher.running = {};
    return decision;
  }
  Decision publish_and_apply() {
    Decision decision = publish();
    const ObserveResult result =
        report(decision.update->id, decision.update->placement, WorkerStatus::applied);
    REQUIRE(result.applied);
    publisher.running = decision.update->id;
    return decision;
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "A fresh start holds its first decision two seconds") {
  time = 0;
  send_counts();
  CHECK(decide().verdict == Verdict::cooling_down);
  time = 2;
  CHECK(decide().verdict == Verdict::update);
}

TEST_CASE_METHOD(Fixture,
                 "An imbalance over the threshold is answered by a better, valid placement") {
  const Decision decision = publish();
  REQUIRE(decision.update);
  const PlacementUpdate& update = *decision.update;
  CHECK(update.id.version == 1);
  CHECK(update.id.term == static_cast<uint64_t>(at(time).unix_seconds));
  CHECK(update.base == PlacementId{});
  CHECK(update.reason == UpdateReason::threshold);
  CHECK(update.imbalance_before > 1.1);
  CHECK(update.imbalance_after < update.imbalance_before - 0.01);
  CHECK(update.moves == moves_between(topology, Placement::initial(topology), update.placement));
  CHECK(decision.moves == static_cast<int64_t>(update.moves.size()));
  CHECK(update.changed_layers.size() <= 4);
  const Placement initial = Placement::initial(topology);
  PlacementRules rules;
  rules.base = &initial;
  CHECK_FALSE(find_violation(topology, update.placement, rules));
}

TEST_CASE_METHOD(Fixture, "Deciding changes nothing") {
  send_counts();
  const Decision first = decide();
  const Decision second = rebalancer.decide(at(time));
  REQUIRE(first.update);
  REQUIRE(second.update);
  CHECK(first.update->placement == second.update->placement);
  CHECK(rebalancer.group().published().id == PlacementId{});
  CHECK(rebalancer.state_after(first, at(time)).published.id == first.update->id);
  CHECK(rebalancer.group().published().id == PlacementId{});
}

TEST_CASE_METHOD(Fixture, "Verdicts come in the contract's order") {
  CHECK(decide().verdict == Verdict::no_counts);
  send_counts();
  options.trigger.min_tokens = 1'000'000'000;
  rebalancer.set_options(options, at(time));
  CHECK(decide().verdict == Verdict::too_few_tokens);
  options.trigger.min_tokens = 0;
  options.trigger.min_tokens_per_gpu_step = 1'000'000;
  rebalancer.set_options(options, at(time));
  CHECK(decide().verdict == Verdict::too_few_tokens);
  options.trigger.min_tokens_per_gpu_step = 0;
  rebalancer.set_options(options, at(time));
  CHECK(decide().verdict == Verdict::update);
  rebalancer.pause(0);
  CHECK(decide().verdict == Verdict::paused);
  rebalancer.set_mode(Mode::observe);
  CHECK(decide().verdict == Verdict::observing);
  rebalancer.resume();
  rebalancer.set_mode(Mode::shadow);
  CHECK(decide().verdict == Verdict::would_update);
  rebalancer.set_mode(std::nullopt);
  options.trigger.imbalance = 100;
  rebalancer.set_options(options, at(time));
  CHECK(decide().verdict == Verdict::balanced);
  options.trigger.imbalance = 1.1;
  options.trigger.min_gain = 100;
  rebalancer.set_options(options, at(time));
  CHECK(decide().verdict == Verdict::gain_too_small);
  time += 31;
  CHECK(decide().verdict == Verdict::no_counts);
}

TEST_CASE_METHOD(Fixture, "Idle sources leave too few tokens, not a decision on nothing") {
  publisher.counts.assign(publisher.counts.size(), 0);
  send_counts();
  const Decision decision = decide();
  CHECK(decision.verdict == Verdict::too_few_tokens);
  CHECK(decision.imbalance == 0);
}

TEST_CASE_METHOD(Fixture, "A published placement is applying until the group reports it") {
  const Decision published = publish();
  CHECK(decide().verdict == Verdict::applying);
  report({}, Placement::initial(topology), WorkerStatus::applying);
  CHECK(decide().verdict == Verdict::applying);
  CHECK(rebalancer.group().running() == PlacementId{});
  const ObserveResult result =
      report(published.update->id, published.update->placement, WorkerStatus::applied);
  CHECK(result.applied);
  CHECK(rebalancer.group().running() == published.update->id);
  CHECK(decide().verdict == Verdict::cooling_down);
  time += 1;
  CHECK(decide().verdict != Verdict::cooling_down);
}

TEST_CASE_METHOD(Fixture, "What was not applied in time is published again, once each such time") {
  publish();
  int published_again = 0;
  for (int second = 0; second < 600; ++second) {
    send_counts();
    report({}, Placement::initial(topology));
    const Decision decision = decide();
    CHECK_FALSE(decision.update);
    if (!decision.publish_again) continue;
    ++published_again;
    rebalancer.record(decision, at(time));
  }
  CHECK(published_again == 5);  // every 120 seconds
}

TEST_CASE_METHOD(Fixture, "A failure holds, and is told once") {
  const Decision published = publish();
  auto failed =
      reporter.report(topology, time, {}, Placement::initial(topology), WorkerStatus::failed);
  failed.error = "out of memory";
  const ObserveResult result = rebalancer.observe(failed, at(time));
  CHECK(result.failed);
  CHECK_THAT(result.detail, Contains("out of memory"));
  time += 1;
  CHECK_FALSE(report({}, Placement::initial(topology), WorkerStatus::failed).failed);
  send_counts();
  CHECK(decide().verdict == Verdict::apply_failed);
  // It may still come right.
  CHECK(report(published.update->id, published.update->placement).applied);
  CHECK(decide().verdict == Verdict::cooling_down);
}

TEST_CASE_METHOD(Fixture, "A group without state reports is taken at its counts' word") {
  const Decision published = publish();
  Publisher other;
  other.source = "dp1";
  other.counts = publisher.counts;
  time += 1;
  other.running = published.update->id;
  rebalancer.ingest(other.report(time), at(time));
  CHECK(decide().verdict == Verdict::applying);
  publisher.running = published.update->id;
  send_counts();
  CHECK(decide().verdict == Verdict::cooling_down);
  CHECK(rebalancer.group().running() == published.update->id);
}

TEST_CASE_METHOD(Fixture, "A report above what we know is adopted, and the next term is above it") {
  std::vector<int32_t> map = Placement::initial(topology).map();
  std::rotate(map.begin(), map.begin() + 1, map.begin() + 32);
  const Placement theirs(topology, map);
  const PlacementId id{1'600'000'000, 41};
  const ObserveResult result = report(id, theirs);
  CHECK(result.adopted);
  CHECK(rebalancer.group().in_force() == theirs);
  CHECK(rebalancer.group().published().id == id);
  const Decision decision = publish();
  CHECK(decision.update->id.version == 42);
  CHECK(decision.update->id.term >= 1'700'000'000);
  CHECK(decision.update->base == id);
}

TEST_CASE_METHOD(Fixture, "A term of the future within a day is topped, one beyond is rejected") {
  const Placement initial = Placement::initial(topology);
  const uint64_t now = static_cast<uint64_t>(at(time).unix_seconds);
  CHECK(report({now + 100'000, 3}, initial).rejected == RejectReason::bad_timestamp);
  time += 1;
  CHECK(report({now + 80'000, 3}, initial).adopted);
  CHECK(publish().update->id == PlacementId{now + 80'001, 4});
}

TEST_CASE_METHOD(Fixture, "A version that would wrap is rejected") {
  CHECK(report({5, std::numeric_limits<uint64_t>::max()}, Placement::initial(topology)).rejected ==
        RejectReason::bad_value);
}

TEST_CASE_METHOD(Fixture, "Another map under a known name is adopted; the term stays") {
  const Decision first = publish_and_apply();
  std::vector<int32_t> map = first.update->placement.map();
  std::rotate(map.begin(), map.begin() + 5, map.begin() + 40);
  time += 1;
  const ObserveResult result = report(first.update->id, Placement(topology, map));
  CHECK(result.adopted);
  CHECK(rebalancer.group().in_force().map() == map);
  time += 5;
  publisher.counts = as_counts(skewed_loads(topology, 9));
  for (int i = 0; i < 20; ++i) send_counts();
  const Decision next = decide();
  REQUIRE(next.update);
  CHECK(next.update->id == PlacementId{first.update->id.term, 2});
}

TEST_CASE_METHOD(Fixture, "A group that starts over is given the learned placement again") {
  const Decision first = publish_and_apply();
  time += 20;
  reporter.epoch = 2;
  reporter.sequence = 0;
  const ObserveResult result = report({}, Placement::initial(topology));
  CHECK(result.restarted);
  CHECK(rebalancer.group().in_force() == Placement::initial(topology));
  CHECK(rebalancer.group().published().id == first.update->id);
  send_counts();
  CHECK(decide().verdict == Verdict::applying);
}

TEST_CASE_METHOD(Fixture, "Workers may start from a map of their own") {
  std::vector<int32_t> map = Placement::initial(topology).map();
  std::reverse(map.begin(), map.begin() + 40);
  CHECK(report({}, Placement(topology, map)).adopted);
  CHECK(rebalancer.group().initial().map() == map);
  CHECK(rebalancer.group().published().id == PlacementId{});
  CHECK(rebalancer.group().published().placement.map() == map);
}

TEST_CASE_METHOD(Fixture, "Another shape stops decisions until the right one is reported") {
  send_counts();
  Topology other = make_topology(4, 32, 48, 8);
  CHECK(rebalancer.observe(reporter.report(other, time, {}, Placement::initial(other)), at(time))
            .topology_mismatch);
  CHECK(decide().verdict == Verdict::topology_mismatch);
  time += 1;
  report({}, Placement::initial(topology));
  CHECK(decide().verdict == Verdict::update);
}

TEST_CASE_METHOD(Fixture, "A recovered state goes on with the same term and the next version") {
  const Decision first = publish_and_apply();
  Rebalancer again(topology, options, at(time), rebalancer.state());
  CHECK(again.group().published().id == first.update->id);
  CHECK(again.group().published().placement == first.update->placement);
  time += 5;
  publisher.counts = as_counts(skewed_loads(topology, 9));
  again.ingest(publisher.report(time), at(time));
  again.observe(reporter.report(topology, time, first.update->id, first.update->placement),
                at(time));
  again.advance(at(time));
  const Decision next = again.decide(at(time));
  REQUIRE(next.update);
  CHECK(next.update->id == PlacementId{first.update->id.term, 2});
}

TEST_CASE_METHOD(Fixture, "A stale decision is not recorded") {
  send_counts();
  const Decision decision = decide();
  REQUIRE(decision.update);
  report({1'600'000'000, 7}, Placement::initial(topology));
  CHECK_FALSE(rebalancer.record(decision, at(time)));
  CHECK(rebalancer.group().published().id == PlacementId{1'600'000'000, 7});
}

TEST_CASE_METHOD(Fixture, "No more updates an hour than allowed, across a restart") {
  options.limits.updates_per_hour = 1;
  rebalancer.set_options(options, at(time));
  const Decision first = publish_and_apply();
  publisher.counts = as_counts(skewed_loads(topology, 9));
  for (int i = 0; i < 30; ++i) send_counts();
  CHECK(decide().verdict == Verdict::rate_limited);
  Rebalancer again(topology, options, at(time), rebalancer.state());
  again.ingest(publisher.report(time + 1), at(time + 1));
  again.observe(reporter.report(topology, time + 1, first.update->id, first.update->placement),
                at(time + 1));
  again.advance(at(time + 1));
  CHECK(again.decide(at(time + 1)).verdict == Verdict::rate_limited);
  time += 3600;
  send_counts();  // a baseline, after so long a gap
  send_counts();
  CHECK(decide().verdict == Verdict::update);
}

TEST_CASE_METHOD(Fixture, "An update keeps to its budgets") {
  options.limits.max_moves = 3;
  options.limits.max_layers = 2;
  options.limits.max_moves_per_gpu = 1;
  options.trigger.min_gain = 0;
  rebalancer.set_options(options, at(time));
  const Decision decision = publish();
  CHECK(decision.moves <= 3);
  CHECK(decision.worst_gpu_moves <= 1);
  CHECK(decision.update->changed_layers.size() <= 2);
}

TEST_CASE_METHOD(Fixture, "A rollback brings an earlier map under a new version, and holds") {
  const Decision first = publish_and_apply();
  time += 5;
  publisher.counts = as_counts(skewed_loads(topology, 9));
  for (int i = 0; i < 30; ++i) send_counts();
  const Decision second = publish_and_apply();
  const Decision back = rebalancer.plan_rollback(std::nullopt, at(time));
  REQUIRE(back.update);
  CHECK(back.update->reason == UpdateReason::rollback);
  CHECK(back.update->id == PlacementId{first.update->id.term, 3});
  CHECK(count_moves(topology, first.update->placement, back.update->placement).total == 0);
  CHECK(rebalancer.record(back, at(time)));
  CHECK(rebalancer.paused(at(time)));
  CHECK_FALSE(rebalancer.plan_rollback(99, at(time)).update);
  REQUIRE(second.update);
}

TEST_CASE_METHOD(Fixture, "An imported placement is checked") {
  send_counts();
  std::vector<int32_t> map = Placement::initial(topology).map();
  map[0] = 1;
  const Decision refused = rebalancer.plan_import(Placement(topology, map), at(time));
  CHECK_FALSE(refused.update);
  CHECK_THAT(refused.detail, Contains("layer 0"));
  std::swap(map[1], map[20]);
  map[0] = 0;
  const Decision taken = rebalancer.plan_import(Placement(topology, map), at(time));
  REQUIRE(taken.update);
  CHECK(taken.update->reason == UpdateReason::imported);
}

TEST_CASE_METHOD(Fixture, "A pause ends by itself at its time") {
  rebalancer.pause(at(time + 10).unix_seconds);
  send_counts();
  CHECK(decide().verdict == Verdict::paused);
  time += 10;
  CHECK(decide().verdict == Verdict::update);
}

TEST_CASE_METHOD(Fixture, "A GPU that is drained is emptied at once, and filled when it is back") {
  publish_and_apply();
  CHECK(rebalancer.set_gpus_down({99}, {}));
  CHECK(rebalancer.set_gpus_down({1, 2, 3}, {}));  // too few slots would be left
  REQUIRE_FALSE(rebalancer.set_gpus_down({3}, {}));
  const Decision drained = decide();
  REQUIRE(drained.verdict == Verdict::update);
  CHECK(drained.update->reason == UpdateReason::gpu);
  CHECK(drained.update->gpus_down == std::vector<int32_t>{3});
  PlacementRules rules;
  const std::vector<int32_t> down = {3};
  rules.gpus_down = down;
  CHECK_FALSE(find_violation(topology, drained.update->placement, rules));
  REQUIRE(rebalancer.record(drained, at(time)));
  report(drained.update->id, drained.update->placement);
  CHECK_FALSE(decide().update);
  REQUIRE_FALSE(rebalancer.set_gpus_down({}, {}));
  const Decision restored = decide();
  REQUIRE(restored.verdict == Verdict::update);
  CHECK_FALSE(find_violation(topology, restored.update->placement));
}

TEST_CASE_METHOD(Fixture, "From-scratch policies are repaired before they are published") {
  for (const Policy policy : {Policy::deepseek, Policy::evolved, Policy::joint}) {
    options.balancer.policy = policy;
    options.trigger.min_gain = 0.001;
    Rebalancer with_policy(topology, options, at(0));
    with_policy.ingest(publisher.report(time), at(10));
    with_policy.advance(at(10));
    const Decision decision = with_policy.decide(at(10));
    INFO(to_string(policy) << ": " << decision.detail);
    REQUIRE(decision.update);
    CHECK_FALSE(find_violation(topology, decision.update->placement));
    time += 1;
  }
}

TEST_CASE_METHOD(Fixture, "Measured imbalance comes from what GPUs really received") {
  send_counts();
  CHECK(rebalancer.measured_imbalance(at(time)) == 0);
  std::vector<uint32_t> gpu_tokens(4 * 8, 10);
  gpu_tokens[0] = 20;
  time += 1;
  CountsReport report = publisher.report(time);
  report.gpu_tokens = packed(gpu_tokens);
  rebalancer.ingest(report, at(time));
  CHECK(rebalancer.measured_imbalance(at(time)) == Approx(50.0 / (11.25 + 30)));
}

TEST_CASE_METHOD(Fixture, "Changing the window's length loses no load") {
  send_counts();
  const double tokens = rebalancer.tokens(at(time));
  options.window.half_life = std::chrono::seconds(60);
  rebalancer.set_options(options, at(time));
  CHECK(rebalancer.tokens(at(time)) == Approx(tokens).epsilon(0.01));
  CHECK(rebalancer.half_life() == std::chrono::seconds(60));
}
