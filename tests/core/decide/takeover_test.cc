// One daemon that goes on from what another one saved.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>

#include "core/decide/rebalancer.h"
#include "tests/core/decide/rebalancer_fixture.h"

using namespace eplbd;

TEST_CASE_METHOD(RebalancerFixture, "What another daemon saved takes the place of what was known",
                 "[takeover]") {
  RebalancerFixture leader;
  const Decision first = leader.publish_and_apply();
  send_counts();
  REQUIRE(decide().verdict == Verdict::update);
  const std::vector<double> loads = rebalancer.loads(at(time));
  rebalancer.follow(leader.rebalancer.state(), at(time));
  CHECK(rebalancer.state().placements.published == *first.update);
  CHECK(rebalancer.group().running() == first.update->id);
  CHECK(rebalancer.group().in_force() == first.update->placement);
  CHECK(rebalancer.loads(at(time)) == loads);  // what was heard of load stays
  CHECK(decide().verdict != Verdict::update);  // it was planned for this load
}

TEST_CASE_METHOD(RebalancerFixture, "A new leader names what is in force above all earlier names",
                 "[takeover]") {
  CHECK_FALSE(rebalancer.plan_recovered(at(time)).update);  // nothing was published yet
  RebalancerFixture leader;
  const PlacementUpdate published = *leader.publish().update;
  const uint64_t won = static_cast<uint64_t>(at(time).unix_seconds) + 1000;
  for (const uint64_t term : {uint64_t{1}, won}) {
    rebalancer.follow(leader.rebalancer.state(), at(time));
    rebalancer.begin_term(term);
    const Decision recovered = rebalancer.plan_recovered(at(time));
    REQUIRE(recovered.verdict == Verdict::update);
    CHECK(recovered.update->reason == UpdateReason::recovered);
    CHECK(recovered.update->placement == published.placement);
    CHECK(recovered.moves == 0);
    CHECK(recovered.update->id.term >= std::max(term, published.id.term + 1));
    CHECK(recovered.update->id.version > published.id.version);
    REQUIRE(rebalancer.record(recovered));
    CHECK(report(recovered.update->id, published.placement).applied);
  }
  for (const Mode mode : {Mode::observe, Mode::shadow}) {
    rebalancer.set_mode(mode);
    CHECK(rebalancer.plan_recovered(at(time)).verdict != Verdict::update);
  }
}

TEST_CASE_METHOD(RebalancerFixture, "Who follows forgets no name that a group was heard to run",
                 "[takeover]") {
  const PlacementId heard{static_cast<uint64_t>(at(time).unix_seconds) + 500, 9};
  REQUIRE(report(heard, Placement::initial(topology)).adopted);
  RebalancerFixture leader;
  leader.publish();
  rebalancer.follow(leader.rebalancer.state(), at(time));
  const Decision recovered = rebalancer.plan_recovered(at(time));
  REQUIRE(recovered.update);
  CHECK(recovered.update->id > heard);
}

TEST_CASE_METHOD(RebalancerFixture, "A new leader is not slowed down by what did not pay before",
                 "[takeover]") {
  const auto slowed_down = [&] {
    send_counts();
    return decide().detail.find("did not pay") != std::string::npos;
  };
  for (uint32_t swing = 0; swing < 5; ++swing) {
    publisher.counts = as_counts(skewed_loads(topology, 1 + swing % 2));
    time += 60;
    publish_and_apply();
  }
  REQUIRE(slowed_down());
  rebalancer.follow(rebalancer.state(), at(time));
  CHECK_FALSE(slowed_down());
}
