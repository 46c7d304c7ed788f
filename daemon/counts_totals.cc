// SPDX-License-Identifier: Apache-2.0
#include "daemon/counts_totals.h"

#include <array>
#include <chrono>

#include "daemon/formats/npy.h"

namespace eplbd {

void CountsTotals::add(std::span<const uint32_t> counts, TimePoint now) {
  if (totals_.empty() || counts.empty()) return;
  if (now - asked_ > kForgotten) {
    totals_ = {};
    return;
  }
  for (size_t i = 0; i < counts.size(); ++i) totals_[i] += counts[i];
}

std::string CountsTotals::read(const Topology& topology, Now now) {
  if (totals_.empty() || now.steady - asked_ > kForgotten) {
    totals_.assign(static_cast<size_t>(topology.layers) * topology.logical_experts, 0);
    series_ = std::to_string(now.steady.time_since_epoch().count());
  }
  asked_ = now.steady;
  const std::array<int64_t, 2> shape = {topology.layers, topology.logical_experts};
  std::string bytes = npy_header(NpyType::uint64, shape);
  bytes.append(reinterpret_cast<const char*>(totals_.data()), totals_.size() * sizeof(uint64_t));
  return bytes;
}

}  // namespace eplbd
