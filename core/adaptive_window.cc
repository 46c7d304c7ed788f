// SPDX-License-Identifier: Apache-2.0
#include "core/adaptive_window.h"

namespace eplbd {
namespace {

constexpr Duration kFirstHalfLife = std::chrono::seconds(4);

}  // namespace

AdaptiveWindow::AdaptiveWindow(const Topology& topology, const WindowOptions& options) {
  const size_t cells = static_cast<size_t>(topology.layers) * topology.logical_experts;
  windows_.emplace_back(cells, options.half_life.value_or(kFirstHalfLife));
}

void AdaptiveWindow::add(std::span<const uint32_t> counts, Duration covered, TimePoint now) {
  for (LoadWindow& window : windows_) window.add(counts, covered, now);
}

void AdaptiveWindow::tick(TimePoint) {}

void AdaptiveWindow::read(TimePoint now, std::span<double> loads) const {
  windows_[in_force_].read(now, loads);
}

double AdaptiveWindow::tokens(TimePoint now) const { return windows_[in_force_].tokens(now); }

Duration AdaptiveWindow::half_life() const { return windows_[in_force_].half_life(); }

}  // namespace eplbd
