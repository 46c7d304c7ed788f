// SPDX-License-Identifier: Apache-2.0
#include "core/load/load_window.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

using namespace eplbd;

namespace {

// Times are whole nanoseconds, as they are in the program.
struct Report {
  std::vector<uint32_t> counts;
  Duration covered{};
  Duration at{};
};

TimePoint at(double seconds) { return TimePoint{from_seconds(seconds)}; }

// The definition: each report's counts decay from every moment of the time that they cover.
std::vector<double> slow_reference(const std::vector<Report>& reports, Duration half_life,
                                   Duration now) {
  const long double decay = std::log(2.0L) / half_life.count();
  std::vector<long double> exact(reports.front().counts.size());
  for (const Report& report : reports) {
    const long double x = decay * report.covered.count();
    const long double spread = x > 0 ? -std::expm1(-x) / x : 1.0L;
    const long double age = (now - report.at).count();
    for (size_t i = 0; i < exact.size(); ++i) {
      exact[i] += report.counts[i] * spread * std::exp(-decay * age);
    }
  }
  return {exact.begin(), exact.end()};
}

void check_against_reference(Duration half_life, double longest_gap_seconds) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> unit(0, 1);
  const auto gap = [&] { return from_seconds(unit(random) * longest_gap_seconds); };
  LoadWindow window(5, half_life);
  std::vector<Report> reports;
  Duration now = std::chrono::hours(1);
  std::vector<double> loads(5);
  for (int i = 0; i < 400; ++i) {
    now += gap();
    Report report{{}, gap(), now};
    for (int cell = 0; cell < 5; ++cell) {
      report.counts.push_back(static_cast<uint32_t>(unit(random) * 4294967295.0));
    }
    window.add(report.counts, report.covered, TimePoint{now});
    reports.push_back(report);
    const Duration later = now + gap();
    window.read(TimePoint{later}, loads);
    const auto expected = slow_reference(reports, half_life, later);
    double tokens = 0;
    for (size_t cell = 0; cell < loads.size(); ++cell) {
      tokens += expected[cell];
      if (expected[cell] < 1e-280) continue;  // nothing is left of it
      CHECK(std::abs(loads[cell] / expected[cell] - 1) < 1e-9);
    }
    if (tokens > 1e-280) CHECK(std::abs(window.tokens(TimePoint{later}) / tokens - 1) < 1e-9);
  }
}

}  // namespace

TEST_CASE("the window equals its definition", "[load_window]") {
  using namespace std::chrono_literals;
  SECTION("seconds") { check_against_reference(5s, 3); }
  SECTION("gaps of many half-lives") { check_against_reference(5s, 2000); }
  SECTION("one millisecond") { check_against_reference(1ms, 0.01); }
  SECTION("thirty days") { check_against_reference(720h, 86400); }
  SECTION("thirty days, reports every moment") { check_against_reference(720h, 0.001); }
}

TEST_CASE("the window goes on for years without losing precision", "[load_window]") {
  LoadWindow window(1, std::chrono::seconds(10));
  const std::vector<uint32_t> counts{1000};
  double now = 0;
  for (int i = 0; i < 100000; ++i) {
    now += 3600;
    window.add(counts, Duration{0}, at(now));
  }
  std::vector<double> loads(1);
  window.read(at(now), loads);
  CHECK(loads[0] == Approx(1000).epsilon(1e-9));
}

TEST_CASE("after a gap longer than any memory nothing is left, and nothing breaks",
          "[load_window]") {
  LoadWindow window(2, std::chrono::milliseconds(1));
  window.add(std::vector<uint32_t>{4294967295U, 1}, Duration{0}, at(1));
  const double month = 30 * 86400;
  std::vector<double> loads(2);
  window.read(at(1 + month), loads);
  CHECK(loads == std::vector<double>{0, 0});
  CHECK(window.tokens(at(1 + month)) == 0);
  window.add(std::vector<uint32_t>{3, 4}, Duration{0}, at(1 + month));
  window.read(at(1 + month), loads);
  CHECK(loads == std::vector<double>{3, 4});
}

TEST_CASE("a long report is no burst", "[load_window]") {
  LoadWindow window(1, std::chrono::seconds(5));
  window.add(std::vector<uint32_t>{1800000}, std::chrono::minutes(30), at(1800));
  std::vector<double> loads(1);
  window.read(at(1800), loads);
  // 1,000 tokens a second: in the long run a window holds rate x half-life / ln 2.
  CHECK(loads[0] == Approx(1000 * 5 / std::log(2.0)).epsilon(1e-6));
}

TEST_CASE("a window without counts is empty", "[load_window]") {
  LoadWindow window(3, std::chrono::seconds(1));
  std::vector<double> loads(3, 7);
  window.read(at(5), loads);
  CHECK(loads == std::vector<double>{0, 0, 0});
  CHECK(window.tokens(at(5)) == 0);
}
