// The load window that the rebalancer plans from: one fixed half-life, or several side by side of
// which the one that predicted the latest counts best is in force.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/load_window.h"
#include "core/time.h"
#include "core/topology.h"

namespace eplbd {

struct WindowOptions {
  std::optional<Duration> half_life;  // nothing: tune it
  bool operator==(const WindowOptions&) const = default;
};

class AdaptiveWindow {
 public:
  AdaptiveWindow(const Topology& topology, const WindowOptions& options);

  // As LoadWindow::add: counts [layers, logical_experts].
  void add(std::span<const uint32_t> counts, Duration covered, TimePoint now);

  // Once a decision: scores the half-lives on what came since the last call.
  void tick(TimePoint now);

  void read(TimePoint now, std::span<double> loads) const;  // [layers, logical_experts]
  double tokens(TimePoint now) const;
  Duration half_life() const;  // in force

 private:
  std::vector<LoadWindow> windows_;
  size_t in_force_ = 0;
};

}  // namespace eplbd
