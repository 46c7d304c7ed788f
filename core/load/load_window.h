// Exponentially decayed tokens [layers, logical experts]. It forgets by elapsed time, not by
// message: uneven rates and many sources do not change its length.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/model/time.h"

namespace eplbd {

// One decay. Bookkeeping a message is O(1): increments are scaled up, the window is not scaled
// down; it is renormalised long before a double overflows.
class LoadWindow {
 public:
  // Requires: cells > 0, half_life > 0.
  LoadWindow(size_t cells, Duration half_life);

  // Counts [cells] spread evenly over the `covered` time that ends at `now`, decaying from there.
  // Requires: covered >= 0; `now` not before that of an earlier call.
  void add(std::span<const uint32_t> counts, Duration covered, TimePoint now);

  // Forgets what came before: these loads [cells] are what came over the `covered` time that ends
  // at `now`.
  void restart(std::span<const double> loads, Duration covered, TimePoint now);

  // Decayed tokens of each cell [cells] as of `now`.
  void read(TimePoint now, std::span<double> loads) const;
  double tokens(TimePoint now) const;  // their sum
  Duration half_life() const { return half_life_; }

 private:
  // Half-lives from the origin to `now`.
  double age(TimePoint now) const;
  void renormalise(TimePoint now);

  Duration half_life_;
  TimePoint origin_{};  // increments are scaled by 2^age
  bool started_ = false;
  double tokens_ = 0;
  std::vector<double> cells_;
};

// What counts spread evenly over `covered` are worth at its end: (1 - e^-x) / x, x = covered in
// units of 1 / decay.
double spread_weight(double decay_per_second, Duration covered);

}  // namespace eplbd
