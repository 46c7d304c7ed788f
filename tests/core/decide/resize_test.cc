// A group that grows or shrinks while it is served.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "core/model/migration.h"
#include "tests/core/decide/rebalancer_fixture.h"

namespace eplbd {
namespace {

using Catch::Matchers::Contains;

struct ResizeFixture : RebalancerFixture {
  // What the group's own maps are of, as it says.
  Topology real = topology;

  // It holds what it held, as far as it has the GPUs and the slots; what is new is empty.
  Placement carry_over(const Topology& before, const Placement& placement) const {
    std::vector<int32_t> map(static_cast<size_t>(real.layers) * real.slots, kNoExpert);
    for (size_t cell = 0; cell < map.size(); ++cell) {
      const auto slot = static_cast<int32_t>(cell % real.slots);
      const int32_t gpu = real.gpu_of(slot);
      const int32_t place = slot % real.slots_per_gpu();
      if (gpu >= before.gpus || place >= before.slots_per_gpu()) continue;
      map[cell] = placement.layer(
          static_cast<int32_t>(cell / real.slots))[gpu * before.slots_per_gpu() + place];
    }
    return {real, std::move(map)};
  }
  Placement scale(Shape shape) {
    real = resized(topology, shape);
    const Placement carried = carry_over(rebalancer.topology(), rebalancer.group().in_force());
    observe({}, carried);
    return carried;
  }
  ObserveResult observe(PlacementId id, const Placement& map,
                        WorkerStatus status = WorkerStatus::idle) {
    return rebalancer.observe(reporter.report(real, time, id, map, status), at(time));
  }
  bool names(ProblemKind kind) const {
    return std::ranges::count(rebalancer.problems(at(time)), kind, &Problem::kind) > 0;
  }
  // No placement of `next` needs fewer: what is empty, or lies nowhere any more, is to be fetched.
  int64_t least_moves(const Placement& carried) const {
    int64_t least = 0;
    for (int32_t layer = 0; layer < real.layers; ++layer) {
      const auto row = carried.layer(layer);
      std::vector<int32_t> replicas(real.logical_experts);
      count_replicas(row, replicas);
      least += std::max(std::ranges::count(row, kNoExpert), std::ranges::count(replicas, 0));
    }
    return least;
  }
  void check_resized(const Decision& decision, const Placement& carried) {
    INFO(decision.detail);
    REQUIRE(decision.verdict == Verdict::update);
    const PlacementUpdate& update = *decision.update;
    CHECK(update.reason == UpdateReason::resized);
    CHECK_FALSE(find_violation(real, update.placement, {.base = &carried}));
    CHECK(decision.moves == count_moves(real, carried, update.placement).total);
    CHECK(decision.moves >= least_moves(carried));
    CHECK(update.gpus_down.empty());
  }
};

TEST_CASE_METHOD(ResizeFixture, "A group that grew is a problem until it is resized", "[resize]") {
  const Decision first = publish_and_apply();
  const double tokens = rebalancer.tokens(at(time));
  const Placement carried = scale({50, 10});
  CHECK(names(ProblemKind::topology_mismatch));
  CHECK_THAT(rebalancer.group().mismatch(), Contains("resize --gpus 10 --slots 50"));
  send_counts();
  CHECK(decide().verdict == Verdict::topology_mismatch);
  CHECK(rebalancer.topology() == topology);

  const Decision grown = rebalancer.plan_resize({50, 10}, at(time));
  check_resized(grown, carried);
  CHECK(grown.update->id > first.update->id);
  CHECK(grown.update->id.term == first.update->id.term);
  CHECK(grown.imbalance_after < grown.imbalance);
  REQUIRE(rebalancer.record(grown));
  CHECK(rebalancer.topology() == real);
  CHECK_FALSE(names(ProblemKind::topology_mismatch));
  CHECK(rebalancer.tokens(at(time)) > tokens);

  observe({}, carried, WorkerStatus::applying);  // GPUs that are not filled yet are not down
  CHECK(rebalancer.gpus_down().empty());
  CHECK(observe(grown.update->id, grown.update->placement, WorkerStatus::applied).applied);
  CHECK(rebalancer.problems(at(time)).empty());
  CHECK_FALSE(rebalancer.gain_realised());
  time += 30;
  publisher.counts = as_counts(skewed_loads(topology, 7));
  for (int i = 0; i < 20; ++i) send_counts();
  const Decision next = decide();
  REQUIRE(next.verdict == Verdict::update);
  CHECK(next.update->reason == UpdateReason::threshold);
  CHECK_FALSE(find_violation(real, next.update->placement));
}

TEST_CASE_METHOD(ResizeFixture, "A group that shrank loads from disk what nobody holds any more",
                 "[resize]") {
  publish_and_apply();
  const Placement carried = scale({36, 6});  // six slots a GPU where there were five
  const Decision shrunk = rebalancer.plan_resize({36, 6}, at(time));
  check_resized(shrunk, carried);
  std::vector<int32_t> replicas(real.logical_experts);
  for (const Move& move : shrunk.update->moves) {
    count_replicas(carried.layer(move.layer), replicas);
    CHECK((move.source_slot < 0) == (replicas[move.expert] == 0));
  }
  options.limits.max_moves = 1;  // what must be is more; beyond that there is nothing left
  rebalancer.set_options(options, at(time));
  const Decision bounded = rebalancer.plan_resize({36, 6}, at(time));
  check_resized(bounded, carried);
  CHECK(bounded.moves == least_moves(carried));

  REQUIRE(rebalancer.record(shrunk));
  CHECK(names(ProblemKind::broken_map));
  observe(shrunk.update->id, shrunk.update->placement, WorkerStatus::applied);
  CHECK(rebalancer.problems(at(time)).empty());
}

TEST_CASE_METHOD(ResizeFixture, "Nodes and speeds follow the shape", "[resize]") {
  Topology nodes = make_topology(4, 32, 40, 8, 2);
  nodes.gpu_speeds = {1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5};
  CHECK(resized(nodes, {60, 12}).nodes == 3);
  CHECK(resized(nodes, {60, 12}).gpu_speeds[11] == 1);
  CHECK(resized(nodes, {60, 12}).gpu_speeds[7] == 0.5);
  CHECK(resized(nodes, {45, 9}).nodes == 1);
  CHECK(resized(nodes, {45, 9}).problems().empty());
  CHECK(resized(nodes, {32, 4}).gpu_speeds.size() == 4);
  CHECK(resized(resized(nodes, {60, 12}), {40, 8}) == nodes);
}

TEST_CASE_METHOD(ResizeFixture, "What the group does not run is refused", "[resize]") {
  const auto refusal = [&](Shape shape) {
    const Decision decision = rebalancer.plan_resize(shape, at(time));
    CHECK_FALSE(decision.update);
    return decision.detail;
  };
  CHECK_THAT(refusal({40, 8}), Contains("already"));
  publish_and_apply();
  CHECK_THAT(refusal({50, 10}), Contains("scale the group first"));
  scale({50, 10});
  CHECK_THAT(refusal({60, 12}), Contains("50 slots, 10 GPUs"));
  scale({24, 8});
  CHECK_THAT(refusal({24, 8}), Contains("slots 24") && Contains("logical_experts 32"));
  CHECK_THAT(refusal({0, 0}), Contains("at least 1"));
  CHECK_THAT(refusal({41, 8}), Contains("multiple"));
  real.logical_experts = 33;  // another model
  observe({}, Placement(real, std::vector<int32_t>(4 * 24, 0)));
  CHECK(rebalancer.group().carried() == nullptr);
  CHECK_THAT(refusal({48, 8}), Contains("33 logical experts"));
  CHECK(rebalancer.topology() == topology);
}

TEST_CASE_METHOD(ResizeFixture, "A group that reports no state is taken at the operator's word",
                 "[resize]") {
  send_counts();
  const Placement held = rebalancer.group().in_force();
  real = resized(topology, {50, 10});
  const Placement carried = carry_over(topology, held);
  const Decision grown = rebalancer.plan_resize({50, 10}, at(time));
  check_resized(grown, carried);
  REQUIRE(rebalancer.record(grown));
  publisher.running = grown.update->id;
  send_counts();
  rebalancer.advance(at(time));
  CHECK_FALSE(rebalancer.group().pending());
  CHECK(rebalancer.group().in_force() == grown.update->placement);
}

TEST_CASE_METHOD(ResizeFixture,
                 "What is saved of a resize is what is so after it, and over restarts",
                 "[resize]") {
  reporter.inactive_gpus = true;
  publish_and_apply();
  REQUIRE_FALSE(rebalancer.set_gpus_down({3}, {3}));
  const Placement carried = scale({50, 10});
  const RebalancerState before = rebalancer.state();
  const Decision grown = rebalancer.plan_resize({50, 10}, at(time));
  const RebalancerState saved = rebalancer.state_after(grown);
  CHECK(rebalancer.state() == before);
  REQUIRE(rebalancer.record(grown));
  CHECK(rebalancer.state() == saved);
  CHECK(saved.gpus_down.empty());
  CHECK(saved.gpus_lost.empty());
  CHECK(saved.resized == Shape{50, 10});

  // The daemon ended before it was published: the group runs what it carried over.
  Rebalancer again(topology, options, at(time), saved);
  CHECK(again.topology() == real);
  again.observe(reporter.report(real, time, {}, carried), at(time));
  CHECK(again.group().pending());
  CHECK(again.gpus_down().empty());
  CHECK(again.state().placements.next_id(at(time).unix_seconds) > grown.update->id);

  Rebalancer standby(topology, options, at(time));
  standby.follow(saved, at(time));
  CHECK(standby.topology() == real);
  CHECK(standby.group().published().id == grown.update->id);

  scale({40, 8});
  const Decision back = rebalancer.plan_resize({40, 8}, at(time));
  REQUIRE(back.update);
  CHECK(back.update->id > grown.update->id);
  CHECK_FALSE(rebalancer.state_after(back).resized);
}

TEST_CASE_METHOD(ResizeFixture, "A resize is of what the group carried over, and of nothing else",
                 "[resize]") {
  const Decision pending = publish();  // not applied when the group grows
  scale({50, 10});
  const Decision grown = rebalancer.plan_resize({50, 10}, at(time));
  REQUIRE(grown.update);
  CHECK(grown.update->id > pending.update->id);
  const RebalancerState before = rebalancer.state();
  scale({60, 12});  // while it was saved
  CHECK_FALSE(rebalancer.record(grown));
  CHECK(rebalancer.state() == before);
  CHECK(rebalancer.topology() == topology);
  rebalancer.give_up(grown);
  const Decision next = rebalancer.plan_resize({60, 12}, at(time));
  REQUIRE(next.update);
  CHECK(next.update->id > grown.update->id);
  CHECK(rebalancer.record(next));
}

TEST_CASE_METHOD(ResizeFixture, "A group that flaps between two shapes is followed ever less often",
                 "[resize]") {
  options.follow_shape = true;
  rebalancer.set_options(options, at(time));
  publish_and_apply();
  std::vector<double> times;
  PlacementId highest;
  Placement carried;
  for (int second = 0; second < 400; ++second) {
    send_counts();
    if (!rebalancer.group().topology_mismatch()) {
      carried = scale(real.gpus == 8 ? Shape{50, 10} : Shape{40, 8});
    }
    observe({}, carried);
    const Decision decision = decide();
    if (!decision.update) {
      CHECK(decision.verdict == Verdict::cooling_down);
      CHECK(names(ProblemKind::topology_mismatch));
      continue;
    }
    REQUIRE(decision.update->reason == UpdateReason::resized);
    CHECK(decision.update->id > highest);
    highest = decision.update->id;
    REQUIRE(rebalancer.record(decision));
    observe(decision.update->id, decision.update->placement, WorkerStatus::applied);
    times.push_back(time);
  }
  REQUIRE(times.size() == 7);  // after 0, 5, 15, 35, 75, 155 and 315 seconds
  for (size_t i = 1; i < times.size(); ++i) CHECK(times[i] - times[i - 1] >= 5 * (1 << (i - 1)));
}

TEST_CASE_METHOD(ResizeFixture, "A group is followed to no shape that is too small", "[resize]") {
  options.follow_shape = true;
  rebalancer.set_options(options, at(time));
  publish_and_apply();
  scale({24, 8});
  send_counts();
  const Decision decision = decide();
  CHECK(decision.verdict == Verdict::topology_mismatch);
  CHECK_THAT(decision.detail, Contains("slots 24"));
  scale({50, 10});
  rebalancer.pause(0);
  CHECK(decide().verdict == Verdict::paused);
  rebalancer.resume();
  rebalancer.set_mode(Mode::shadow);
  CHECK(decide().verdict == Verdict::topology_mismatch);
  rebalancer.set_mode(std::nullopt);
  CHECK(decide().verdict == Verdict::update);
}

TEST_CASE_METHOD(ResizeFixture, "Counts of a group of another shape are taken, less their GPUs",
                 "[resize]") {
  publish_and_apply();
  const auto send_with_gpus = [&](int32_t gpus) {
    time += 1;
    const std::vector<uint32_t> tokens(4 * static_cast<size_t>(gpus), 10);
    CountsReport report = publisher.report(time);
    report.gpu_tokens = packed(tokens);
    return rebalancer.ingest(report, at(time)).rejected;
  };
  CHECK(send_with_gpus(10) == RejectReason::wrong_shape);
  scale({50, 10});
  CHECK_FALSE(send_with_gpus(10));
  CHECK_FALSE(send_with_gpus(8));
  CHECK(send_with_gpus(12) == RejectReason::wrong_shape);
  const Decision grown = rebalancer.plan_resize({50, 10}, at(time));
  REQUIRE(rebalancer.record(grown));
  observe(grown.update->id, grown.update->placement, WorkerStatus::applied);
  CHECK(send_with_gpus(8) == RejectReason::wrong_shape);
  CHECK_FALSE(send_with_gpus(10));
  CHECK_FALSE(send_with_gpus(10));
  CHECK(rebalancer.measured_imbalance(at(time)) == 1);
}

}  // namespace
}  // namespace eplbd
