// The load window that the rebalancer plans from: one fixed half-life, or a memory that tunes
// itself.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <variant>

#include "core/load/arrivals.h"
#include "core/load/load_forecast.h"
#include "core/load/load_window.h"
#include "core/model/time.h"
#include "core/model/topology.h"

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

  // Whether add() is wanted as soon as a message comes: it decays from there. Otherwise add_all()
  // will do, of all that came since it was called last.
  bool each_at_once() const { return std::holds_alternative<LoadWindow>(window_); }
  void add_all(const Arrivals& arrivals);  // Requires: !each_at_once()

  // The load jumped: these loads [layers, logical_experts] are what came over the `covered` time
  // since, and instead of what was added in it.
  void jump(std::span<const double> loads, Duration covered, TimePoint now);

  // Once before each decision: what came since is scored and taken in, where memory tunes itself.
  // True: read() has changed since the last call, other than by decay.
  bool tick(TimePoint now);

  void read(TimePoint now, std::span<double> loads) const;  // [layers, logical_experts]
  double tokens(TimePoint now) const;
  Duration half_life() const;  // in force

  // ---- What `incremental` plans with, see BalanceRequest; all unknown with a fixed half-life ----
  bool read_steady(std::span<double> loads) const;  // [layers, logical_experts]; false: none
  double forecast_error() const;
  double newest_share() const;

 private:
  std::variant<LoadWindow, LoadForecast> window_;
  bool changed_ = false;
};

}  // namespace eplbd
