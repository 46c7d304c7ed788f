// The rebalancer in virtual time: hours of load in milliseconds.
// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <functional>
#include <random>

#include "core/decide/rebalancer.h"
#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "tests/core/shapes.h"

using namespace eplbd;

namespace {

// A group that applies what is published after `apply_seconds`, and sends counts every second.
class Group {
 public:
  Group(const Topology& topology, const RebalancerOptions& options, double apply_seconds)
      : topology_(topology),
        rebalancer_(topology, options, at(0)),
        apply_seconds_(apply_seconds),
        map_(Placement::initial(topology)) {}

  // One second: counts drawn from `popularity`, then a decision every 100 ms.
  void second(const std::vector<double>& popularity) {
    time_ += 1;
    if (!silent_) send(popularity);
    for (int tick = 0; tick < 10; ++tick) decide(at(time_ + tick * 0.1));
  }

  void set_silent(bool silent) { silent_ = silent; }
  void lose_message() { ++publisher_.sequence; }
  int64_t moves() const { return moves_; }
  int updates() const { return updates_; }
  double last_update_seconds() const { return last_update_; }
  double imbalance() const {
    return imbalance_of(topology_, map_, rebalancer_.loads(at(time_))).whole_model;
  }
  Rebalancer& rebalancer() { return rebalancer_; }
  double time() const { return time_; }
  const std::vector<Decision>& published() const { return published_; }

 private:
  void send(const std::vector<double>& popularity) {
    publisher_.counts.resize(popularity.size());
    for (size_t i = 0; i < popularity.size(); ++i) {
      publisher_.counts[i] = std::poisson_distribution<uint32_t>(popularity[i])(random_);
    }
    publisher_.running = running_;
    CHECK_FALSE(rebalancer_.ingest(publisher_.report(time_), at(time_)).rejected);
  }

  void decide(Now now) {
    if (applying_ && now.steady >= apply_at_) {
      running_ = applying_->id;
      map_ = applying_->placement;
      applying_.reset();
      const double ts = now.unix_seconds - 1'700'000'000.0;
      CHECK(
          rebalancer_
              .observe(reporter_.report(topology_, ts, running_, map_, WorkerStatus::applied), now)
              .applied);
    }
    rebalancer_.advance(now);
    const Decision decision = rebalancer_.decide(now);
    REQUIRE(decision.verdict != Verdict::invalid_candidate);
    if (decision.update) {
      PlacementRules rules;
      rules.base = &map_;
      REQUIRE_FALSE(find_violation(topology_, decision.update->placement, rules));
      REQUIRE(decision.update->id > rebalancer_.group().published().id);
      REQUIRE(decision.update->id.version == rebalancer_.group().published().id.version + 1);
      applying_ = decision.update;
      apply_at_ = now.steady + from_seconds(apply_seconds_);
      moves_ += decision.moves;
      ++updates_;
      last_update_ = now.unix_seconds - 1'700'000'000.0;
      published_.push_back(decision);
    }
    REQUIRE(rebalancer_.record(decision));
  }

  const Topology topology_;
  Rebalancer rebalancer_;
  const double apply_seconds_;
  Placement map_;
  PlacementId running_;
  std::optional<PlacementUpdate> applying_;
  TimePoint apply_at_{};
  Publisher publisher_;
  Reporter reporter_;
  std::mt19937 random_{42};
  double time_ = 0;
  bool silent_ = false;
  int64_t moves_ = 0;
  int updates_ = 0;
  double last_update_ = 0;
  std::vector<Decision> published_;
};

const Topology kTopology = make_topology(4, 32, 40, 8);

// Thousands of tokens an expert a second.
std::vector<double> popularity(uint32_t seed) {
  auto loads = skewed_loads(kTopology, seed, 0.7);
  for (double& load : loads) load *= 20;
  return loads;
}

RebalancerOptions default_options() { return {}; }

}  // namespace

TEST_CASE("Under a stationary load it converges, then moves nothing for 10,000 ticks") {
  Group group(kTopology, default_options(), 2);
  const auto load = popularity(1);
  for (int second = 0; second < 120; ++second) group.second(load);
  CHECK(group.updates() >= 1);
  CHECK(group.imbalance() < 1.10);
  const int64_t moves = group.moves();
  for (int second = 0; second < 1000; ++second) group.second(load);
  CHECK(group.moves() == moves);
  CHECK(group.imbalance() < 1.10);
}

TEST_CASE("A jump of the load is answered within the cooldown and mended") {
  RebalancerOptions options = default_options();
  Group group(kTopology, options, 1);
  for (int second = 0; second < 120; ++second) group.second(popularity(1));
  const double jump = group.time();
  for (int second = 0; second < 60; ++second) group.second(popularity(2));
  const auto first = std::find_if(group.published().begin(), group.published().end(),
                                  [&](const Decision& decision) {
                                    return decision.update->unix_seconds - 1'700'000'000.0 > jump;
                                  });
  REQUIRE(first != group.published().end());
  CHECK(first->update->unix_seconds - 1'700'000'000.0 - jump <=
        to_seconds(options.trigger.cooldown) + 1);
  CHECK(group.imbalance() < 1.15);
}

TEST_CASE("A load that swings between two extremes does not thrash") {
  Group group(kTopology, default_options(), 1);
  const auto one = popularity(1);
  const auto other = popularity(2);
  for (int second = 0; second < 600; ++second) group.second(second % 2 ? one : other);
  const int64_t moves = group.moves();
  const int updates = group.updates();
  for (int second = 0; second < 600; ++second) group.second(second % 2 ? one : other);
  CHECK(group.updates() - updates <= 2);
  CHECK(group.moves() - moves <= 20);
}

TEST_CASE("A silent publisher changes nothing, and neither does its return") {
  Group group(kTopology, default_options(), 1);
  const auto load = popularity(1);
  for (int second = 0; second < 120; ++second) group.second(load);
  const int updates = group.updates();
  group.set_silent(true);
  for (int second = 0; second < 600; ++second) group.second(load);
  CHECK(group.rebalancer().decide(at(group.time())).verdict == Verdict::no_counts);
  group.set_silent(false);
  for (int second = 0; second < 120; ++second) group.second(load);
  CHECK(group.updates() == updates);
}

TEST_CASE("A lost message changes nothing") {
  Group group(kTopology, default_options(), 1);
  const auto load = popularity(1);
  for (int second = 0; second < 120; ++second) group.second(load);
  const int updates = group.updates();
  for (int second = 0; second < 120; ++second) {
    if (second % 10 == 0) group.lose_message();
    group.second(load);
  }
  CHECK(group.updates() == updates);
}

TEST_CASE("Budgets are never exceeded, and it gets there all the same") {
  RebalancerOptions options = default_options();
  options.limits.max_moves = 4;
  options.limits.max_moves_per_gpu = 2;
  options.limits.max_layers = 3;
  options.limits.moves_per_hour = 200;
  options.trigger.min_gain = 0;
  Group group(kTopology, options, 1);
  for (int second = 0; second < 900; ++second) group.second(popularity(1 + second / 300));
  CHECK(group.updates() > 3);
  for (const Decision& decision : group.published()) {
    CHECK(decision.moves <= 4);
    CHECK(decision.worst_gpu_moves <= 2);
    CHECK(decision.update->changed_layers.size() <= 3);
  }
  CHECK(group.moves() <= 200);
}
