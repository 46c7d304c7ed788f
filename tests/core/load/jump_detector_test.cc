// SPDX-License-Identifier: Apache-2.0
#include "core/load/jump_detector.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <random>

#include "tests/core/shapes.h"

namespace eplbd {
namespace {

const Topology kTopology = make_topology(4, 32, 40, 8);

// The detector under a window that knows the load well, and sources that report once a second.
struct Watch {
  JumpDetector detector{kTopology};
  Arrivals arrivals{4, 32};
  std::vector<UsualSurprise> usual;
  std::mt19937_64 random{7};
  std::vector<double> before = routed_loads(kTopology, 1, 8000);
  std::vector<double> after = routed_loads(kTopology, 2, 8000);
  double scale = 1;  // of the tokens of a report

  explicit Watch(size_t sources) : usual(sources) {
    auto known = before;
    for (double& load : known) load *= 100;
    arrivals.expect(detector.shares());
    detector.expect(known);
  }

  std::vector<uint32_t> draw(double part, double bursts = 0) {
    std::vector<uint32_t> counts;
    std::normal_distribution<double> normal;
    for (size_t i = 0; i < before.size(); ++i) {
      const double mean = scale * (part * after[i] + (1 - part) * before[i]);
      const double rate = bursts > 0 ? mean * std::exp(bursts * normal(random)) : mean;
      counts.push_back(std::poisson_distribution<uint32_t>(rate)(random));
    }
    return counts;
  }

  // A report that covers the second until `time`, so much of it after the jump.
  void report(size_t source, double time, double part, double bursts = 0) {
    add(draw(part, bursts), time, usual[source]);
  }
  void add(const std::vector<uint32_t>& counts, double time, UsualSurprise& source) {
    arrivals.take(std::as_bytes(std::span(counts)), {});
    arrivals.keep(std::chrono::seconds(1));
    arrivals.clear();
    detector.add(arrivals, std::chrono::seconds(1), at(time).steady, source);
  }
  double phase(size_t source) const {
    return (static_cast<double>(source) + 0.5) / static_cast<double>(usual.size());
  }
  // Every source, out of step, for so many seconds from `begin` on.
  void steady(double begin, int seconds, double bursts = 0) {
    for (int second = 0; second < seconds; ++second) {
      for (size_t i = 0; i < usual.size(); ++i) {
        report(i, begin + second + phase(i), 0, bursts);
      }
    }
  }
};

// How far a load is from another, of shares.
double distance(const std::vector<double>& a, const std::vector<double>& b) {
  const double a_sum = std::accumulate(a.begin(), a.end(), 0.0);
  const double b_sum = std::accumulate(b.begin(), b.end(), 0.0);
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += std::pow(a[i] / a_sum - b[i] / b_sum, 2);
  return std::sqrt(squares);
}

TEST_CASE("chance is no jump, however few or many the tokens") {
  for (const double scale : {0.002, 0.05, 1.0, 30.0}) {
    CAPTURE(scale);
    Watch watch(4);
    watch.scale = scale;
    watch.steady(0, 1000);
    CHECK_FALSE(watch.detector.suspected_at());
  }
}

TEST_CASE("requests in bursts are no jump: what is usual is learned") {
  Watch watch(4);
  watch.steady(0, 1000, 0.2);
  CHECK_FALSE(watch.detector.suspected_at());
}

TEST_CASE("a jump is suspected with the first report, and the load since is told by all") {
  Watch watch(8);
  watch.steady(0, 10);
  std::vector<double> since(watch.before.size());
  for (size_t i = 0; i < 8; ++i) {
    watch.report(i, 10 + watch.phase(i), 1);
    REQUIRE(watch.detector.suspected_at() == at(10 + watch.phase(0)).steady);
  }
  const auto ago = watch.detector.settle(at(11).steady, since);
  REQUIRE(ago);
  CHECK(to_seconds(*ago) >= 0.95);
  CHECK(to_seconds(*ago) < 1.2);
  CHECK_FALSE(watch.detector.suspected_at());
  CHECK(distance(since, watch.after) < 0.03 * distance(watch.before, watch.after));
}

TEST_CASE("reports that hold both mixes tell the load since") {
  for (const size_t sources : {2U, 3U, 8U, 32U}) {
    for (const double mild : {1.0, 0.3}) {
      CAPTURE(sources, mild);
      Watch watch(sources);
      watch.scale = 400.0 / static_cast<double>(sources);
      for (size_t i = 0; i < watch.after.size(); ++i) {
        watch.after[i] = mild * watch.after[i] + (1 - mild) * watch.before[i];
      }
      watch.steady(0, 10);
      std::vector<double> since(watch.before.size());
      for (size_t i = 0; i < sources; ++i) {
        watch.report(i, 10 + watch.phase(i), watch.phase(i));
      }
      // Sources that had told before it was seen tell once more.
      for (size_t i = 0; i < sources; ++i) {
        if (at(10 + watch.phase(i)).steady >= *watch.detector.suspected_at()) break;
        watch.report(i, 11 + watch.phase(i), 1);
      }
      REQUIRE(watch.detector.settle(at(12).steady, since));
      const double whole = distance(watch.before, watch.after);
      CHECK(distance(since, watch.after) < 0.15 * whole);
      // All of the tokens together would be half way.
      CHECK(distance(since, watch.before) > 0.85 * whole);
    }
  }
}

TEST_CASE("several sources at one time tell a jump with their next reports") {
  Watch watch(4);
  watch.steady(0, 10);
  std::vector<double> since(watch.before.size());
  for (size_t i = 0; i < 4; ++i) watch.report(i, 20, 0.5);
  CHECK_FALSE(watch.detector.settle(at(20).steady, since));
  CHECK(watch.detector.suspected_at() == at(20).steady);
  for (size_t i = 0; i < 4; ++i) watch.report(i, 21, 1);
  CHECK(watch.detector.settle(at(21).steady, since));
  CHECK(distance(since, watch.after) < 0.05 * distance(watch.before, watch.after));
}

TEST_CASE("what one source shows is not the group's, and it is learned in time") {
  Watch watch(8);
  watch.steady(0, 10);
  std::vector<double> since(watch.before.size());
  int suspicions = 0;
  for (int second = 10; second < 100; ++second) {
    for (size_t i = 0; i < 8; ++i) {
      watch.report(i, second + watch.phase(i), i == 3 ? 0.3 : 0.0);
    }
    if (!watch.detector.suspected_at()) continue;
    ++suspicions;
    for (size_t i = 0; i < 3; ++i) watch.report(i, second + 0.99, 0);
    CHECK_FALSE(watch.detector.settle(at(second + 0.99).steady, since));
  }
  CHECK(suspicions >= 1);
  CHECK(suspicions < 45);
}

TEST_CASE("nothing is expected before anything is known, and silence is no jump") {
  Watch watch(1);
  JumpDetector fresh(kTopology);
  UsualSurprise usual;
  const std::vector<uint32_t> counts = watch.draw(1);
  watch.arrivals.take(std::as_bytes(std::span(counts)), {});
  fresh.add(watch.arrivals, std::chrono::seconds(1), at(1).steady, usual);
  CHECK_FALSE(fresh.suspected_at());
  watch.steady(0, 10);
  const std::vector<uint32_t> none(watch.before.size());
  watch.add(none, 11, watch.usual[0]);
  CHECK_FALSE(watch.detector.suspected_at());
}

}  // namespace
}  // namespace eplbd
