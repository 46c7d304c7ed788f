// Virtual time: what is due happens in order, and nothing takes any.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "core/model/time.h"

namespace eplbd::simulation {

class Schedule {
 public:
  TimePoint now() const { return now_; }
  double seconds() const { return to_seconds(now_ - kBeginning); }

  void after(Duration delay, std::function<void()> task) {
    tasks_.emplace(std::pair(now_ + delay, number_++), std::move(task));
  }
  // Runs what is due until `end`, and stops there.
  void run_until(TimePoint end) {
    while (!tasks_.empty() && tasks_.begin()->first.first <= end) {
      const auto node = tasks_.extract(tasks_.begin());
      now_ = node.key().first;
      node.mapped()();
    }
    now_ = end;
  }

  static constexpr TimePoint kBeginning{std::chrono::seconds(1000)};

 private:
  TimePoint now_ = kBeginning;
  uint64_t number_ = 0;  // what is due at one moment happens in the order in which it was told
  std::map<std::pair<TimePoint, uint64_t>, std::function<void()>> tasks_;
};

// Numbers that depend on nothing but their seed and how many were drawn: the same on every
// machine. SplitMix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t end) { return next() % end; }
  double real() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)
  bool chance(double probability) { return real() < probability; }
  template <typename T, size_t N>
  T one_of(const T (&values)[N]) {
    return values[below(N)];
  }

 private:
  uint64_t state_;
};

}  // namespace eplbd::simulation
