// SPDX-License-Identifier: Apache-2.0
#include "core/decide/rebalancer.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <limits>

#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "tests/core/decide/rebalancer_fixture.h"

using namespace eplbd;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

TEST_CASE_METHOD(RebalancerFixture, "A fresh start holds its first decision two seconds") {
  time = 0;
  send_counts();
  CHECK(decide().verdict == Verdict::cooling_down);
  time = 2;
  CHECK(decide().verdict == Verdict::update);
}

TEST_CASE_METHOD(RebalancerFixture,
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

TEST_CASE_METHOD(RebalancerFixture, "Deciding changes nothing") {
  send_counts();
  const Decision first = decide();
  const Decision second = rebalancer.decide(at(time));
  REQUIRE(first.update);
  REQUIRE(second.update);
  CHECK(first.update->placement == second.update->placement);
  CHECK(rebalancer.group().published().id == PlacementId{});
  CHECK(rebalancer.state_after(first).placements.published.id == first.update->id);
  CHECK(rebalancer.group().published().id == PlacementId{});
}

TEST_CASE_METHOD(RebalancerFixture, "Verdicts come in the contract's order") {
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

TEST_CASE_METHOD(RebalancerFixture,
                 "Idle sources leave too few tokens, not a decision on nothing") {
  publisher.counts.assign(publisher.counts.size(), 0);
  send_counts();
  const Decision decision = decide();
  CHECK(decision.verdict == Verdict::too_few_tokens);
  CHECK(decision.imbalance == 0);
}

TEST_CASE_METHOD(RebalancerFixture,
                 "A published placement is applying until the group reports it") {
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

TEST_CASE_METHOD(RebalancerFixture,
                 "What was not applied in time is published again, once each such time") {
  publish();
  int published_again = 0;
  for (int second = 0; second < 600; ++second) {
    send_counts();
    report({}, Placement::initial(topology));
    const Decision decision = decide();
    CHECK_FALSE(decision.update);
    if (!decision.publish_again) continue;
    ++published_again;
    rebalancer.record(decision);
  }
  CHECK(published_again == 5);  // every 120 seconds
}

TEST_CASE_METHOD(RebalancerFixture, "A failure holds, and is told once") {
  const Decision published = publish();
  const Placement initial = Placement::initial(topology);
  auto failed = reporter.report(topology, time, {}, initial, WorkerStatus::failed);
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

TEST_CASE_METHOD(RebalancerFixture, "A group without state reports is taken at its counts' word") {
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

TEST_CASE_METHOD(RebalancerFixture,
                 "A report above what we know is adopted, and the next term is above it") {
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

TEST_CASE_METHOD(RebalancerFixture,
                 "A term of the future within a day is topped, one beyond is rejected") {
  const Placement initial = Placement::initial(topology);
  const uint64_t now = static_cast<uint64_t>(at(time).unix_seconds);
  CHECK(report({now + 100'000, 3}, initial).rejected == RejectReason::bad_timestamp);
  time += 1;
  CHECK(report({now + 80'000, 3}, initial).adopted);
  CHECK(publish().update->id == PlacementId{now + 80'001, 4});
}

TEST_CASE_METHOD(RebalancerFixture, "A version that would wrap is rejected") {
  CHECK(report({5, std::numeric_limits<uint64_t>::max()}, Placement::initial(topology)).rejected ==
        RejectReason::bad_value);
}

TEST_CASE_METHOD(RebalancerFixture, "Another map under a known name is adopted; the term stays") {
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

TEST_CASE_METHOD(RebalancerFixture,
                 "A group that starts over is given the learned placement again") {
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

TEST_CASE_METHOD(RebalancerFixture, "Workers may start from a map of their own") {
  std::vector<int32_t> map = Placement::initial(topology).map();
  std::reverse(map.begin(), map.begin() + 40);
  CHECK(report({}, Placement(topology, map)).adopted);
  CHECK(rebalancer.group().initial().map() == map);
  CHECK(rebalancer.group().published().id == PlacementId{});
  CHECK(rebalancer.group().published().placement.map() == map);
}

TEST_CASE_METHOD(RebalancerFixture,
                 "Another shape stops decisions until the right one is reported") {
  send_counts();
  Topology other = make_topology(4, 32, 48, 8);
  CHECK(rebalancer.observe(reporter.report(other, time, {}, Placement::initial(other)), at(time))
            .topology_mismatch);
  CHECK(decide().verdict == Verdict::topology_mismatch);
  time += 1;
  report({}, Placement::initial(topology));
  CHECK(decide().verdict == Verdict::update);
}

TEST_CASE_METHOD(RebalancerFixture,
                 "A recovered state goes on with the same term and the next version") {
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

TEST_CASE_METHOD(RebalancerFixture, "A stale decision is not recorded") {
  send_counts();
  const Decision decision = decide();
  REQUIRE(decision.update);
  report({1'600'000'000, 7}, Placement::initial(topology));
  CHECK_FALSE(rebalancer.record(decision));
  CHECK(rebalancer.group().published().id == PlacementId{1'600'000'000, 7});
}

TEST_CASE_METHOD(RebalancerFixture,
                 "A search in vain is not repeated until the load changes or time passes") {
  options.trigger.min_gain = 100;
  rebalancer.set_options(options, at(time));
  send_counts();
  const Decision searched = decide();
  CHECK(searched.verdict == Verdict::gain_too_small);
  CHECK(searched.solved);
  rebalancer.record(searched);
  const Decision again = decide();
  CHECK(again.verdict == Verdict::gain_too_small);
  CHECK_FALSE(again.solved);
  time += 1;
  CHECK_FALSE(decide().solved);
  time += 4;
  CHECK(decide().solved);
}

TEST_CASE_METHOD(RebalancerFixture, "Where the load rose by what was lacking, it searches sooner") {
  send_counts();
  options.trigger.min_gain = decide().imbalance - 1;
  rebalancer.set_options(options, at(time));
  const Decision searched = decide();
  REQUIRE(searched.verdict == Verdict::gain_too_small);
  rebalancer.record(searched);
  time += 0.5;
  publisher.counts = as_counts(skewed_loads(topology, 1, 1.2));
  send_counts();
  const Decision later = decide();
  REQUIRE(later.imbalance - searched.imbalance < options.trigger.min_gain);
  CHECK(later.solved);
}

TEST_CASE_METHOD(RebalancerFixture, "One layer above the threshold is enough") {
  // Only the first layer is uneven: 1.1 at most of the whole model.
  const size_t experts = topology.logical_experts;
  publisher.counts.assign(publisher.counts.size(), 10'000);
  for (size_t expert = 0; expert < 4; ++expert) publisher.counts[expert] = 14'000;
  REQUIRE(experts == 32);
  options.trigger.min_gain = 0;
  options.trigger.imbalance = 1.3;
  options.trigger.settle = 1.2;
  rebalancer.set_options(options, at(time));
  send_counts();
  const Decision settled = decide();
  CHECK(settled.worst_layer > 1.05);
  INFO(settled.imbalance << " worst " << settled.worst_layer);
  CHECK(settled.verdict == Verdict::balanced);
  const auto layers =
      imbalance_of(topology, Placement::initial(topology), rebalancer.loads(at(time))).layers;
  const auto worst = std::ranges::max_element(layers) - layers.begin();
  CHECK(settled.worst_layer_id == worst);
  CHECK_THAT(settled.detail, Contains("layer " + std::to_string(worst) + " has most, "));
  // The whole model stays below settle.
  options.trigger.settle = settled.imbalance + 0.001;
  options.trigger.imbalance = (settled.imbalance + settled.worst_layer) / 2;
  REQUIRE(options.trigger.imbalance > settled.imbalance);
  rebalancer.set_options(options, at(time));
  const Decision acted = decide();
  CHECK(acted.verdict == Verdict::update);
  CHECK_THAT(acted.detail, StartsWith("layer " + std::to_string(worst) + " has "));
}

TEST_CASE("Where the group said that applying is slow, an update spends more") {
  const auto moves_after = [](double apply_seconds) {
    RebalancerFixture group;
    group.options.trigger.settle = 1.0;  // only the price of a move ends an update
    group.rebalancer.set_options(group.options, at(group.time));
    const Decision first = group.publish();
    StateReport applied = group.reporter.report(group.topology, group.time, first.update->id,
                                                first.update->placement, WorkerStatus::applied);
    applied.apply_seconds = apply_seconds;
    REQUIRE(group.rebalancer.observe(applied, at(group.time)).applied);
    group.publisher.running = first.update->id;
    group.publisher.counts = as_counts(skewed_loads(group.topology, 2));
    group.time += 2;
    return group.publish().moves;
  };
  CHECK(moves_after(30) > moves_after(0));
}
