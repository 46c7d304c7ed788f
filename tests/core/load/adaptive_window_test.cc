// SPDX-License-Identifier: Apache-2.0
#include "core/load/adaptive_window.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "core/load/workload_space.h"
#include "tests/core/shapes.h"

using namespace eplbd;

namespace {

constexpr int32_t kLayers = 6;
constexpr int32_t kExperts = 64;

// Loads of a few workloads, of which a deployment serves a mix: [workloads][layers x experts].
std::vector<std::vector<double>> workloads(int count, uint32_t seed) {
  std::mt19937 random(seed);
  std::lognormal_distribution<double> popularity(0, 1);
  std::vector<std::vector<double>> result(count, std::vector<double>(kLayers * kExperts));
  for (auto& load : result) {
    for (double& value : load) value = popularity(random);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      double sum = 0;
      for (int32_t e = 0; e < kExperts; ++e) sum += load[layer * kExperts + e];
      for (int32_t e = 0; e < kExperts; ++e) load[layer * kExperts + e] *= kExperts / sum;
    }
  }
  return result;
}

std::vector<uint32_t> draw(const std::vector<double>& load, double tokens_per_expert,
                           std::mt19937& random) {
  std::vector<uint32_t> counts;
  for (const double value : load) {
    std::poisson_distribution<uint32_t> count(value * tokens_per_expert);
    counts.push_back(count(random));
  }
  return counts;
}

std::vector<double> blend(const std::vector<double>& a, const std::vector<double>& b, double of_b) {
  std::vector<double> result(a.size());
  for (size_t i = 0; i < a.size(); ++i) result[i] = (1 - of_b) * a[i] + of_b * b[i];
  return result;
}

// Root mean square difference of what a window says and the truth, in mean expert loads.
template <typename Window>
double miss(const Window& window, TimePoint now, const std::vector<double>& truth) {
  std::vector<double> loads(truth.size());
  window.read(now, loads);
  double squares = 0;
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    double sum = 0;
    for (int32_t e = 0; e < kExperts; ++e) sum += loads[layer * kExperts + e];
    for (int32_t e = 0; e < kExperts; ++e) {
      const double error =
          loads[layer * kExperts + e] * kExperts / sum - truth[layer * kExperts + e];
      squares += error * error;
    }
  }
  return std::sqrt(squares / static_cast<double>(truth.size()));
}

const Topology kTopology = make_topology(kLayers, kExperts, 72, 8);
constexpr Duration kSecond = std::chrono::seconds(1);

}  // namespace

TEST_CASE("a fixed half-life is a plain window", "[adaptive_window]") {
  AdaptiveWindow window(kTopology, {std::chrono::seconds(7)});
  LoadWindow plain(kLayers * kExperts, std::chrono::seconds(7));
  std::mt19937 random(1);
  const auto load = workloads(1, 2)[0];
  std::vector<double> a(load.size());
  std::vector<double> b(load.size());
  for (int i = 0; i < 50; ++i) {
    const auto counts = draw(load, 30, random);
    window.add(counts, kSecond, at(i).steady);
    plain.add(counts, kSecond, at(i).steady);
    window.tick(at(i).steady);
    window.read(at(i + 0.5).steady, a);
    plain.read(at(i + 0.5).steady, b);
    REQUIRE(a == b);
  }
  CHECK(window.tokens(at(60).steady) == plain.tokens(at(60).steady));
  CHECK(window.half_life() == std::chrono::seconds(7));
  CHECK(window.forecast_error() == 0);
  CHECK_FALSE(window.read_steady(a));
}

TEST_CASE("a steady load is remembered for long", "[adaptive_window]") {
  AdaptiveWindow window(kTopology, {});
  std::mt19937 random(1);
  const auto load = workloads(1, 2)[0];
  for (int i = 0; i < 300; ++i) {
    window.add(draw(load, 30, random), kSecond, at(i).steady);
    window.tick(at(i).steady);
  }
  CHECK(window.half_life() >= std::chrono::seconds(16));
  // One second misses by sqrt(1 / 30) = 0.18.
  CHECK(miss(window, at(299).steady, load) < 0.05);
  CHECK(window.forecast_error() == Approx(std::sqrt(1.0 / 30)).epsilon(0.2));
}

TEST_CASE("what one second tells is doubted as much as chance has it", "[adaptive_window]") {
  AdaptiveWindow window(kTopology, {});
  std::mt19937 random(1);
  const auto known = workloads(2, 2);
  // It misses the next by its own noise and by that one's: sqrt(2 / 30).
  const double first = std::sqrt(2.0 / 30);
  window.add(draw(known[0], 30, random), kSecond, at(0).steady);
  window.tick(at(0).steady);
  CHECK(window.forecast_error() == Approx(first).epsilon(0.1));
  CHECK(window.newest_share() == Approx(1));
  for (int i = 1; i < 60; ++i) {
    window.add(draw(known[0], 30, random), kSecond, at(i).steady);
    window.tick(at(i).steady);
  }
  CHECK(window.forecast_error() < 0.85 * first);
  CHECK(window.newest_share() < 0.2);
  const auto counts = draw(known[1], 30, random);
  window.jump(std::vector<double>(counts.begin(), counts.end()), kSecond, at(60).steady);
  CHECK(window.forecast_error() == Approx(first).epsilon(0.2));
  CHECK(window.newest_share() > 0.8);
}

TEST_CASE("a mix that drifts is followed better than by any one half-life", "[adaptive_window]") {
  const auto known = workloads(3, 5);
  std::mt19937 random(9);
  AdaptiveWindow tuned(kTopology, {});
  std::vector<AdaptiveWindow> fixed;
  for (const int seconds : {1, 2, 4, 8, 16}) {
    fixed.emplace_back(kTopology, WindowOptions{std::chrono::seconds(seconds)});
  }
  double tuned_miss = 0;
  std::vector<double> fixed_miss(fixed.size());
  for (int i = 0; i < 400; ++i) {
    const double phase = 0.5 + 0.5 * std::sin(i / 12.0);
    const auto load = blend(blend(known[0], known[1], phase), known[2], 0.3);
    const auto counts = draw(load, 30, random);
    const TimePoint now = at(i).steady;
    tuned.add(counts, kSecond, now);
    tuned.tick(now);
    for (auto& window : fixed) window.add(counts, kSecond, now);
    if (i < 100) continue;
    tuned_miss += miss(tuned, now, load);
    for (size_t k = 0; k < fixed.size(); ++k) fixed_miss[k] += miss(fixed[k], now, load);
  }
  CHECK(tuned_miss < 0.7 * *std::min_element(fixed_miss.begin(), fixed_miss.end()));
}

TEST_CASE("a jump to a mix of what was seen is known within two seconds", "[adaptive_window]") {
  const auto known = workloads(2, 5);
  std::mt19937 random(9);
  AdaptiveWindow window(kTopology, {});
  int i = 0;
  const auto serve = [&](const std::vector<double>& load, int seconds) {
    for (const int end = i + seconds; i < end; ++i) {
      window.add(draw(load, 30, random), kSecond, at(i).steady);
      window.tick(at(i).steady);
    }
  };
  serve(known[0], 60);
  serve(known[1], 60);
  serve(known[0], 60);
  const auto mixed = blend(known[0], known[1], 0.5);
  serve(mixed, 2);
  CHECK(miss(window, at(i - 1).steady, mixed) < 0.14);  // one second's counts: 0.18
}

TEST_CASE("a jump to something new is believed", "[adaptive_window]") {
  const auto known = workloads(2, 11);
  std::mt19937 random(9);
  AdaptiveWindow window(kTopology, {});
  for (int i = 0; i < 120; ++i) {
    window.add(draw(known[i < 115 ? 0 : 1], 200, random), kSecond, at(i).steady);
    window.tick(at(i).steady);
  }
  CHECK(miss(window, at(119).steady, known[1]) < 0.12);
}

TEST_CASE("what sources say at different times is taken together", "[adaptive_window]") {
  // Eight sources with loads of their own report once a second each, in turn; ticks are faster.
  const auto own = workloads(8, 21);
  std::vector<double> mean(own[0].size());
  for (const auto& load : own) {
    for (size_t i = 0; i < load.size(); ++i) mean[i] += load[i] / 8;
  }
  std::mt19937 random(3);
  AdaptiveWindow window(kTopology, {});
  for (int tick = 0; tick < 1600; ++tick) {
    const TimePoint now = at(tick / 8.0).steady;
    window.add(draw(own[tick % 8], 5, random), kSecond, now);
    window.tick(now);
  }
  CHECK(window.half_life() >= std::chrono::seconds(16));
  CHECK(miss(window, at(1599 / 8.0).steady, mean) < 0.1);
}

TEST_CASE("silence keeps the forecast and lets its tokens go", "[adaptive_window]") {
  std::mt19937 random(3);
  const auto load = workloads(1, 2)[0];
  AdaptiveWindow window(kTopology, {});
  for (int i = 0; i < 30; ++i) {
    window.add(draw(load, 100, random), kSecond, at(i).steady);
    window.tick(at(i).steady);
  }
  const double before = window.tokens(at(29).steady);
  for (int i = 30; i < 3000; ++i) window.tick(at(i).steady);
  CHECK(miss(window, at(2999).steady, load) < 0.1);
  CHECK(window.tokens(at(2999).steady) < 0.01 * before);
}

TEST_CASE("nothing, zeros and one silent layer do no harm", "[adaptive_window]") {
  AdaptiveWindow window(kTopology, {});
  std::vector<double> loads(kLayers * kExperts, 1);
  window.tick(at(0).steady);
  window.read(at(0).steady, loads);
  CHECK(std::all_of(loads.begin(), loads.end(), [](double load) { return load == 0; }));
  CHECK(window.tokens(at(0).steady) == 0);

  std::vector<uint32_t> counts(loads.size());
  window.add(counts, kSecond, at(1).steady);
  window.tick(at(1).steady);
  CHECK(window.tokens(at(1).steady) == 0);

  std::fill(counts.begin() + kExperts, counts.end(), 4294967295U);
  for (int i = 2; i < 40; ++i) {
    window.add(counts, kSecond, at(i).steady);
    window.tick(at(i).steady);
  }
  window.read(at(39).steady, loads);
  for (size_t i = 0; i < loads.size(); ++i) {
    CHECK(std::isfinite(loads[i]));
    CHECK((loads[i] == 0) == (i < kExperts));
  }
}

TEST_CASE("the space of workloads spans what it was shown", "[workload_space]") {
  const auto known = workloads(3, 5);
  WorkloadSpace space(known[0].size());
  std::mt19937 random(4);
  std::uniform_real_distribution<double> unit(0, 1);
  const auto mixed = [&] {
    const auto load = blend(blend(known[0], known[1], unit(random)), known[2], unit(random));
    return std::vector<float>(load.begin(), load.end());
  };
  for (int i = 0; i < 100; ++i) space.add(mixed());
  REQUIRE(space.directions() >= 3);
  const std::vector<float> load = mixed();
  std::vector<double> position(space.directions());
  space.project(load, position);
  std::vector<float> rebuilt(load.size());
  space.add_to(rebuilt, position);
  for (size_t i = 0; i < load.size(); ++i) REQUIRE(rebuilt[i] == Approx(load[i]).margin(1e-3));
}
