// One exponentially decayed number.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "core/load/load_window.h"
#include "core/model/time.h"

namespace eplbd {

class DecayedSum {
 public:
  // `amount` spread evenly over the `covered` time that ends at `now`.
  void add(double amount, Duration covered, TimePoint now, Duration half_life) {
    const double decay_per_second = std::log(2.0) / to_seconds(half_life);
    value_ = read(now, half_life) + amount * spread_weight(decay_per_second, covered);
    at_ = now;
  }
  double read(TimePoint now, Duration half_life) const {
    return value_ * std::exp2(-to_seconds(now - at_) / to_seconds(half_life));
  }

 private:
  double value_ = 0;
  TimePoint at_{};
};

}  // namespace eplbd
