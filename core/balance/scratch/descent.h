// Steps down from a placement, and random changes out of where they end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/balance/random.h"
#include "core/balance/scratch/constants.h"
#include "core/balance/scratch/exchange.h"
#include "core/balance/scratch/region_state.h"

namespace eplbd {

class Descent {
 public:
  explicit Descent(const SearchConstants& constants)
      : constants_(constants), exchanges_(constants) {}

  // Before the first use in a region, and after it was loaded or placed anew.
  void reset(const RegionState& state) { exchanges_.reset(state); }
  double ways() const { return exchanges_.ways(); }  // see ExchangeSearch

  // Lowers the fullest GPU, again and again, until the peak is at most `target` or no step is left.
  void run(double target, RegionState& state);

  // A few random changes around the fullest GPU, then run(). Goes back where the peak rose by it.
  void attempt(double target, Random& random, RegionState& state);

 private:
  bool step(int32_t gpu, double target, RegionState& state);

  const SearchConstants& constants_;
  ExchangeSearch exchanges_;
  RegionState before_;
};

}  // namespace eplbd
