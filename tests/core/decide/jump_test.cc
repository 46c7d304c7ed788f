// A jump of the load under the default rules, in virtual time: several sources, out of step.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "core/decide/rebalancer.h"
#include "core/model/imbalance.h"
#include "tests/core/shapes.h"

namespace eplbd {
namespace {

const Topology kTopology = make_topology(4, 64, 80, 16);
constexpr double kTick = 0.05;

RebalancerOptions options(double half_life_seconds = 0) {
  RebalancerOptions options;
  options.limits.updates_per_hour = 0;
  if (half_life_seconds > 0) options.window.half_life = from_seconds(half_life_seconds);
  return options;
}

// Tokens a second of the whole group.
std::vector<double> load_of(uint32_t seed) { return routed_loads(kTopology, seed, 400'000); }

struct Source {
  Publisher publisher;
  double interval = 1;
  double next = 0;
  std::vector<double> expected;  // tokens since its last report
  bool silent = false;
};

class Group {
 public:
  // Sources report once a second, out of step; each counts the same part.
  explicit Group(int count, const RebalancerOptions& rules = options())
      : rebalancer_(kTopology, rules, at(0)),
        load(load_of(1)),
        map_(Placement::initial(kTopology)) {
    for (int i = 0; i < count; ++i) add_source((i + 1.0) / count);
  }

  Source& add_source(double next) {
    Source source;
    source.publisher.source = "dp" + std::to_string(sources.size());
    source.publisher.since += time_;
    source.next = time_ + next;
    source.expected.resize(load.size());
    sources.push_back(std::move(source));
    return sources.back();
  }

  void run(double seconds) {
    for (const double end = time_ + seconds - kTick / 2; time_ < end;) step();
  }
  // Until the placement in force is good for the load; how long that took.
  double seconds_until_balanced() {
    const double begin = time_;
    while (imbalance() >= 1.10 && time_ < begin + 60) step();
    return time_ - begin;
  }
  double imbalance() const { return imbalance_of(kTopology, map_, load).whole_model; }
  double time() const { return time_; }

 private:
  Rebalancer rebalancer_;

 public:
  std::vector<double> load;
  std::vector<Source> sources;
  double apply_seconds = 0.5;
  int updates = 0;
  int wrong = 0;  // updates after which the load is not balanced
  Decision last;
  const Rebalancer& rebalancer() const { return rebalancer_; }

 private:
  void step() {
    time_ += kTick;
    const Now now = at(time_);
    if (applying_ && time_ >= applied_at_) {
      map_ = applying_->placement;
      running_ = applying_->id;
      applying_.reset();
      rebalancer_.observe(reporter_.report(kTopology, time_, running_, map_, WorkerStatus::applied),
                          now);
    }
    for (Source& source : sources) {
      for (size_t i = 0; i < load.size(); ++i) {
        source.expected[i] += kTick * load[i] / static_cast<double>(sources.size());
      }
      if (source.silent || time_ < source.next - kTick / 2) continue;
      report(source, now);
    }
    rebalancer_.advance(now);
    last = rebalancer_.decide(now);
    REQUIRE(rebalancer_.record(last));
    if (!last.update) return;
    ++updates;
    if (imbalance_of(kTopology, last.update->placement, load).whole_model >= 1.10) ++wrong;
    applying_ = last.update;
    applied_at_ = time_ + apply_seconds;
    rebalancer_.observe(reporter_.report(kTopology, time_, running_, map_, WorkerStatus::applying),
                        now);
  }

  void report(Source& source, Now now) {
    source.publisher.counts.clear();
    for (double& tokens : source.expected) {
      source.publisher.counts.push_back(std::poisson_distribution<uint32_t>(tokens)(random_));
      tokens = 0;
    }
    source.publisher.running = running_;
    REQUIRE_FALSE(rebalancer_.ingest(source.publisher.report(time_), now).rejected);
    source.next += source.interval;
  }

  std::mt19937_64 random_{11};
  double time_ = 0;
  Reporter reporter_;
  Placement map_;
  PlacementId running_;
  std::optional<PlacementUpdate> applying_;
  double applied_at_ = 0;
};

// Twenty jumps, each `after` seconds and up to two more since the one before was answered: how long
// they stood, in ascending order.
std::vector<double> stood(Group& group, double after) {
  std::vector<double> stood;
  for (int jump = 0; jump < 20; ++jump) {
    group.run(after + 0.37 * (jump % 6));
    group.load = load_of(100 + static_cast<uint32_t>(jump));
    stood.push_back(group.seconds_until_balanced());
  }
  std::sort(stood.begin(), stood.end());
  return stood;
}

TEST_CASE("a jump is answered once all have told of it, within the cooldown, by one right update") {
  for (const double half_life : {0.0, 5.0, 120.0}) {
    CAPTURE(half_life);
    Group group(8, options(half_life));
    group.run(20);
    group.updates = group.wrong = 0;
    const std::vector<double> seconds = stood(group, 1);
    CHECK(seconds[10] <= 1.0 + 0.5 + 2 * kTick);  // all have told, and it is applied
    CHECK(seconds[17] <= 1.0 + 0.5 + 4 * kTick);
    CHECK(group.wrong <= 1);
    CHECK(group.updates <= 25);  // one each, and what chance left to improve
  }
}

TEST_CASE("two sources tell it as well, and many") {
  for (const int sources : {2, 32}) {
    CAPTURE(sources);
    Group group(sources);
    group.run(20);
    group.wrong = 0;
    const std::vector<double> seconds = stood(group, 1);
    CHECK(seconds[10] <= 1.0 + 0.5 + 6 * kTick);
    CHECK(seconds[17] <= 1.0 + 0.5 + 16 * kTick);  // of 400 jumps nine in ten
    CHECK(group.wrong <= 2);
  }
}

TEST_CASE("who has not told is named, and one that became silent is not waited for") {
  Group group(4);
  group.run(20);
  group.sources[2].silent = true;
  group.load = load_of(2);
  group.run(0.55);
  CHECK(group.last.verdict == Verdict::cooling_down);
  CHECK_THAT(group.last.detail, Catch::Contains("the load may have jumped"));
  CHECK_THAT(group.last.detail, Catch::Contains("waiting for dp2 and dp3"));
  CHECK(group.seconds_until_balanced() < 1.5);
}

TEST_CASE("sources that report five times a second and once in four") {
  Group group(4);
  for (Source& source : group.sources) source.interval = 0.2;
  group.sources[3].interval = 4;
  group.run(30);
  group.wrong = 0;
  CHECK(stood(group, 5)[17] <= 4 + 0.5 + 4 * kTick);
  CHECK(group.wrong <= 2);
}

TEST_CASE("sources that join and leave are no jump") {
  Group group(4);
  group.run(30);
  const int updates = group.updates;
  group.add_source(0.6);
  group.run(5);
  group.sources[1].silent = true;
  for (int tick = 0; tick < 400; ++tick) {
    group.run(kTick);
    CHECK_THAT(group.last.detail, !Catch::Contains("jump"));
  }
  CHECK(group.updates <= updates + 1);
}

TEST_CASE("a jump that comes while an update is applied is answered right after it") {
  Group group(8);
  group.run(20);
  group.apply_seconds = 3;
  group.load = load_of(2);
  const int updates = group.updates;
  while (group.updates == updates) group.run(kTick);
  group.run(0.5);
  group.load = load_of(3);
  group.run(2.5 + 2 * kTick);  // the first is applied, and all told of the second
  CHECK(group.updates == updates + 2);
  group.run(3);
  CHECK(group.imbalance() < 1.10);
}

TEST_CASE("a load that swings faster than it can be followed makes it slow down") {
  for (const double period : {0.5, 1.0, 2.0}) {
    CAPTURE(period);
    Group group(8);
    group.run(20);
    group.updates = 0;
    for (int swing = 0; swing < static_cast<int>(600 / period); ++swing) {
      group.load = load_of(1 + swing % 2);
      group.run(period);
    }
    CHECK(group.updates <= 120);  // as many as the cooldown alone allows in that time
  }
}

TEST_CASE("what is too little for a jump's answer is not held back once the cooldown is over") {
  Group group(8);
  group.run(20);
  group.load = load_of(2);
  group.seconds_until_balanced();
  const auto since_applied = [&] {
    return group.time() - to_seconds(*group.rebalancer().group().applied_at() - at(0).steady);
  };
  while (since_applied() < 3.5) group.run(kTick);
  REQUIRE(group.last.verdict == Verdict::cooling_down);
  const auto other = load_of(3);
  for (size_t i = 0; i < other.size(); ++i) group.load[i] += 0.15 * (other[i] - group.load[i]);
  int in_vain = 0;
  while (since_applied() < 5 - 1.5 * kTick) {
    group.run(kTick);
    in_vain += group.last.solved && group.last.verdict == Verdict::gain_too_small;
  }
  REQUIRE(in_vain > 0);
  const int updates = group.updates;
  group.run(2 * kTick);
  CHECK(group.updates == updates + 1);
}

TEST_CASE("a slow drift is no jump") {
  Group group(8);
  group.run(20);
  std::mt19937_64 random(3);
  std::normal_distribution<double> walk(0, 0.003);
  int held = 0;
  for (int tick = 0; tick < 6000; ++tick) {
    for (double& load : group.load) load *= std::exp(walk(random));
    group.run(kTick);
    held += group.last.detail.find("jump") != std::string::npos;
  }
  CHECK(held < 60);
}

TEST_CASE("one source's burst brings no update within the cooldown") {
  Group group(8);
  group.run(20);
  group.load = load_of(2);
  group.seconds_until_balanced();
  const int updates = group.updates;
  group.run(1);
  for (size_t i = 0; i < group.load.size(); ++i) {
    group.sources[4].expected[i] = load_of(9)[i] / 8;
  }
  group.run(1.1);
  CHECK(group.updates == updates);
  group.run(20);
  CHECK(group.updates <= updates + 1);
}

}  // namespace
}  // namespace eplbd
