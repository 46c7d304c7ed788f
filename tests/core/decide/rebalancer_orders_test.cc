// Limits, what operators ask for, and what is seen from outside.
// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "core/decide/rebalancer.h"
#include "core/model/migration.h"
#include "tests/core/decide/rebalancer_fixture.h"

using namespace eplbd;
using Catch::Matchers::Contains;

TEST_CASE_METHOD(RebalancerFixture, "No more updates an hour than allowed, across a restart") {
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

TEST_CASE_METHOD(RebalancerFixture, "An update keeps to its budgets") {
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

TEST_CASE_METHOD(RebalancerFixture,
                 "A rollback brings an earlier map under a new version, and holds") {
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
  CHECK(rebalancer.record(back));
  CHECK(rebalancer.paused(at(time)));
  CHECK_FALSE(rebalancer.plan_rollback(99, at(time)).update);
  REQUIRE(second.update);
}

TEST_CASE_METHOD(RebalancerFixture, "What is saved before an update is what is so after it") {
  send_counts();
  const auto check_saved = [&](const Decision& decision) {
    INFO(decision.detail);
    const RebalancerState before = rebalancer.state();
    const RebalancerState saved = rebalancer.state_after(decision);
    CHECK(rebalancer.state() == before);
    time += 3;  // saving takes its time
    REQUIRE(rebalancer.record(decision));
    CHECK(rebalancer.state() == saved);
    CHECK((saved == before) == (decision.verdict != Verdict::update));
    return decision;
  };
  rebalancer.set_mode(Mode::shadow);
  CHECK(check_saved(decide()).verdict == Verdict::would_update);
  rebalancer.set_mode(std::nullopt);
  time += 2;
  send_counts();
  const Decision first = check_saved(decide());
  REQUIRE(first.verdict == Verdict::update);
  report(first.update->id, first.update->placement);
  CHECK(check_saved(decide()).verdict == Verdict::cooling_down);
  const Decision back = check_saved(rebalancer.plan_rollback(0, at(time)));
  REQUIRE(back.update);
  CHECK(rebalancer.paused(at(time)));
}

TEST_CASE_METHOD(RebalancerFixture, "An imported placement is checked") {
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

TEST_CASE_METHOD(RebalancerFixture, "A pause ends by itself at its time") {
  rebalancer.pause(at(time + 10).unix_seconds);
  send_counts();
  CHECK(decide().verdict == Verdict::paused);
  time += 10;
  CHECK(decide().verdict == Verdict::update);
}

TEST_CASE_METHOD(RebalancerFixture,
                 "A GPU that is drained is emptied at once, and filled when it is back") {
  reporter.inactive_gpus = true;
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
  REQUIRE(rebalancer.record(drained));
  report(drained.update->id, drained.update->placement);
  CHECK_FALSE(decide().update);
  REQUIRE_FALSE(rebalancer.set_gpus_down({}, {}));
  const Decision restored = decide();
  REQUIRE(restored.verdict == Verdict::update);
  CHECK_FALSE(find_violation(topology, restored.update->placement));
}

TEST_CASE_METHOD(RebalancerFixture,
                 "Limits hold for what is done beyond what a drained GPU asks for") {
  reporter.inactive_gpus = true;
  options.trigger.settle = 1;
  rebalancer.set_options(options, at(time));
  const Decision first = publish_and_apply();
  REQUIRE_FALSE(rebalancer.set_gpus_down({3}, {}));
  const Decision free = decide();
  options.limits.max_moves = 1;
  rebalancer.set_options(options, at(time));
  const Decision bounded = decide();
  REQUIRE(free.verdict == Verdict::update);
  REQUIRE(bounded.verdict == Verdict::update);
  int64_t must_be = 0;  // experts that lie on GPU 3 alone
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const auto row = first.update->placement.layer(layer);
    for (const int32_t expert : row.subspan(15, 5)) {
      must_be += std::ranges::count(row, expert) == std::ranges::count(row.subspan(15, 5), expert);
    }
  }
  CHECK(bounded.moves == must_be);
  CHECK(free.moves > must_be);
  CHECK(rebalancer.record(bounded));
}

TEST_CASE_METHOD(RebalancerFixture,
                 "No GPU is emptied of a group that does not say it can run so") {
  const auto not_drained = [&] {
    return std::ranges::any_of(rebalancer.problems(at(time)), [](const Problem& problem) {
      return problem.kind == ProblemKind::not_drained;
    });
  };
  REQUIRE_FALSE(rebalancer.set_gpus_down({3}, {}));  // nobody was heard yet
  CHECK_FALSE(not_drained());
  const Decision first = publish();
  CHECK(first.update->gpus_down.empty());
  CHECK_FALSE(find_violation(topology, first.update->placement));
  report(first.update->id, first.update->placement, WorkerStatus::applied);
  CHECK(not_drained());
  REQUIRE_FALSE(rebalancer.set_gpus_down({}, {}));
  CHECK_FALSE(not_drained());
  CHECK_THAT(rebalancer.set_gpus_down({3}, {}).value_or(""), Contains("inactive_gpus"));

  reporter.inactive_gpus = true;
  report(first.update->id, first.update->placement);
  REQUIRE_FALSE(rebalancer.set_gpus_down({3}, {}));
  const Decision drained = decide();
  REQUIRE(drained.update);
  CHECK(drained.update->gpus_down == std::vector<int32_t>{3});
  REQUIRE(rebalancer.record(drained));
  CHECK_FALSE(not_drained());

  reporter.inactive_gpus = false;  // started again, as one that cannot
  report({}, Placement::initial(topology));
  CHECK(not_drained());
  const Decision whole = decide();
  REQUIRE(whole.update);
  CHECK(whole.update->reason == UpdateReason::gpu);
  CHECK_FALSE(find_violation(topology, whole.update->placement));
}

TEST_CASE_METHOD(RebalancerFixture,
                 "From-scratch policies are repaired before they are published") {
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

TEST_CASE_METHOD(RebalancerFixture, "Measured imbalance comes from what GPUs really received") {
  send_counts();
  CHECK(rebalancer.measured_imbalance(at(time)) == 0);
  std::vector<uint32_t> gpu_tokens(4 * 8, 10);
  gpu_tokens[0] = 20;
  time += 1;
  CountsReport uneven = publisher.report(time);
  uneven.gpu_tokens = packed(gpu_tokens);
  rebalancer.ingest(uneven, at(time));
  CHECK(rebalancer.measured_imbalance(at(time)) == Approx(50.0 / (11.25 + 30)));

  // Of the next placement only what came wholly under it.
  const Decision next = publish();
  time += 0.5;
  report(next.update->id, next.update->placement, WorkerStatus::applied);
  CHECK(rebalancer.measured_imbalance(at(time)) == 0);
  const auto measure = [&](double seconds) {
    time += seconds;
    CountsReport even = publisher.report(time);
    std::fill(gpu_tokens.begin(), gpu_tokens.end(), 10);
    even.gpu_tokens = packed(gpu_tokens);
    rebalancer.ingest(even, at(time));
    rebalancer.advance(at(time));
  };
  measure(0.5);  // it covers a second
  CHECK(rebalancer.measured_imbalance(at(time)) == 0);
  measure(1);
  CHECK(rebalancer.measured_imbalance(at(time)) == 1);
}

TEST_CASE_METHOD(RebalancerFixture,
                 "What an update gained is not told of a group that started anew") {
  const Decision first = publish_and_apply();
  CHECK_FALSE(rebalancer.gain_realised());
  send_counts();
  rebalancer.advance(at(time));
  REQUIRE(rebalancer.gain_realised());
  CHECK(*rebalancer.gain_realised() > 0);
  // It starts with the initial placement, and takes up the newest.
  report({}, Placement::initial(topology));
  report(first.update->id, first.update->placement, WorkerStatus::applied);
  send_counts();
  rebalancer.advance(at(time));
  CHECK_FALSE(rebalancer.gain_realised());
  publisher.counts = as_counts(skewed_loads(topology, 2));
  time += 30;
  publish_and_apply();
  send_counts();
  rebalancer.advance(at(time));
  CHECK(rebalancer.gain_realised());
}

TEST_CASE_METHOD(RebalancerFixture, "Changing the window's length loses no load") {
  send_counts();
  const double tokens = rebalancer.tokens(at(time));
  options.window.half_life = std::chrono::seconds(60);
  rebalancer.set_options(options, at(time));
  CHECK(rebalancer.tokens(at(time)) == Approx(tokens).epsilon(0.01));
  CHECK(rebalancer.half_life() == std::chrono::seconds(60));
}
