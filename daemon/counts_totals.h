// Running totals of a deployment's counts, for a recorder that asks for them from time to time and
// takes differences. Kept only while somebody asks: nobody else pays for it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/model/time.h"
#include "core/model/topology.h"

namespace eplbd {

class CountsTotals {
 public:
  static constexpr Duration kForgotten = std::chrono::minutes(1);

  // Tokens [layers, logical_experts] that came; on the path of every counts message.
  void add(std::span<const uint32_t> counts, TimePoint now);

  // The totals so far as .npy, uint64 [layers, logical_experts]. They begin at zero with the first
  // call, and again when nobody called for kForgotten: `series` then is another one.
  std::string read(const Topology& topology, Now now);
  const std::string& series() const { return series_; }

 private:
  std::vector<uint64_t> totals_;  // empty: nobody asks
  TimePoint asked_{};
  std::string series_;
};

}  // namespace eplbd
