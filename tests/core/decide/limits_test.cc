// SPDX-License-Identifier: Apache-2.0
#include "core/decide/limits.h"

#include <cmath>
#include <string>

#include "tests/core/decide/rebalancer_fixture.h"

namespace eplbd {
namespace {

struct LimitsFixture : RebalancerFixture {
  RebalancerState state = rebalancer.state();

  LimitsFixture() { options.limits.updates_per_hour = 4; }

  // `seconds` ago, in virtual time that is now 4000 s old.
  void spend(double seconds_ago, int64_t moves) {
    state.spent.push_back({at(4000).unix_seconds - seconds_ago, moves, false});
  }
  Situation situation() const { return {topology, options, at(4000), state}; }
  double wait() const { return seconds_to_limits(situation(), at(4000).steady); }
  double asked_for() const { return paced_gain(situation(), at(4000).steady); }
};

TEST_CASE_METHOD(LimitsFixture, "The limits allow another when the oldest is an hour old",
                 "[limits]") {
  for (const double ago : {3500.0, 2000.0, 1000.0}) {
    CHECK(wait() == 0);
    spend(ago, 10);
  }
  CHECK(wait() == 0);
  spend(500, 10);
  CHECK(wait() == Approx(100));
  MoveBudget budget;
  CHECK(check_limits(situation(), at(4000).steady, budget)->verdict == Verdict::rate_limited);
  CHECK_FALSE(check_limits(situation(), at(4100).steady, budget));

  options.limits.updates_per_hour = 0;
  CHECK(wait() == 0);
  options.limits.moves_per_hour = 25;  // two of them must be older
  CHECK(wait() == Approx(1600));
  CHECK(check_limits(situation(), at(5599).steady, budget));
  CHECK_FALSE(check_limits(situation(), at(5600).steady, budget));
  CHECK(budget.moves == 5);
}

TEST_CASE_METHOD(LimitsFixture, "What is older than an hour does not count", "[limits]") {
  for (int i = 0; i < 4; ++i) spend(3601, 1000);
  options.limits.moves_per_hour = 10;
  CHECK(wait() == 0);
  CHECK(asked_for() == options.trigger.min_gain);
}

TEST_CASE_METHOD(LimitsFixture, "The less is left of an hour's budget, the more is asked for",
                 "[limits]") {
  const double least = options.trigger.min_gain;
  double last = asked_for();
  CHECK(last == least);
  CHECK(why_so_much(situation(), at(4000).steady).empty());
  for (int spent = 1; spent <= 4; ++spent) {
    spend(10, 1);
    CHECK(asked_for() >= last);
    last = asked_for();
  }
  CHECK(last == Approx(10 * least));
  CHECK_THAT(why_so_much(situation(), at(4000).steady), Catch::Matchers::Contains("100 %"));

  SECTION("by moves as by updates") {
    options.limits.updates_per_hour = 1000;
    CHECK(asked_for() == least);
    options.limits.moves_per_hour = 5;
    CHECK(asked_for() > 4 * least);
  }
  SECTION("not where there is no limit") {
    options.limits.updates_per_hour = 0;
    CHECK(asked_for() == least);
  }
}

TEST_CASE_METHOD(LimitsFixture, "The end of the budget is kept for what gains more", "[limits]") {
  rebalancer.set_options(options, at(0));
  send_counts();
  options.trigger.min_gain = decide().gain / 3;
  for (int i = 0; i < 3; ++i) state.spent.push_back({at(time).unix_seconds, 1, false});
  for (const int64_t updates_per_hour : {100, 4}) {
    options.limits.updates_per_hour = updates_per_hour;
    Rebalancer limited(topology, options, at(0), state);
    limited.ingest(publisher.report(time + 1), at(time + 1));
    limited.advance(at(time + 1));
    const Decision decision = limited.decide(at(time + 1));
    INFO(decision.detail);
    REQUIRE(decision.gain > options.trigger.min_gain);
    REQUIRE(decision.gain < 4 * options.trigger.min_gain);
    CHECK(decision.verdict == (updates_per_hour == 4 ? Verdict::gain_too_small : Verdict::update));
  }
}

TEST_CASE_METHOD(LimitsFixture, "A decision says when the next update is possible", "[limits]") {
  options.trigger.cooldown = std::chrono::seconds(20);
  options.limits.updates_per_hour = 1;
  rebalancer.set_options(options, at(0));
  send_counts();
  CHECK(decide().seconds_to_next_update == 0);
  publish_and_apply();
  const double applied = time;
  CHECK(decide().seconds_to_next_update == Approx(3600));
  options.limits.updates_per_hour = 2;
  rebalancer.set_options(options, at(time));
  CHECK(decide().seconds_to_next_update == Approx(20));
  time = applied + 15;
  send_counts();
  CHECK(decide().seconds_to_next_update == Approx(4));
  CHECK(decide().verdict == Verdict::cooling_down);
  time = applied + 20;
  CHECK(decide().seconds_to_next_update == 0);
  CHECK(decide().verdict != Verdict::cooling_down);
}

}  // namespace
}  // namespace eplbd
