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
  CHECK(rebalancer.group().incomplete());

  const Decision decision = publish_and_apply();
  CHECK(find_violation(topology, decision.update->placement) == std::nullopt);
  CHECK_FALSE(rebalancer.group().incomplete());
  time += 60;
  send_counts();
  CHECK(decide().verdict == Verdict::balanced);
}

TEST_CASE_METHOD(RebalancerFixture, "A broken map is remembered over a restart", "[group]") {
  const std::vector<int32_t> all_zero(static_cast<size_t>(topology.layers) * topology.slots, 0);
  REQUIRE(report({}, Placement(topology, all_zero)).adopted);
  const Rebalancer restarted(topology, options, at(time), rebalancer.state());
  CHECK(restarted.group().incomplete());
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

}  // namespace
}  // namespace eplbd
