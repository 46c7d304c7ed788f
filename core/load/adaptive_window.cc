// SPDX-License-Identifier: Apache-2.0
#include "core/load/adaptive_window.h"

#include <utility>

namespace eplbd {
namespace {

std::variant<LoadWindow, LoadForecast> make_window(const Topology& topology,
                                                   const WindowOptions& options) {
  if (!options.half_life) return LoadForecast(topology);
  return LoadWindow(static_cast<size_t>(topology.layers) * topology.logical_experts,
                    *options.half_life);
}

}  // namespace

AdaptiveWindow::AdaptiveWindow(const Topology& topology, const WindowOptions& options)
    : window_(make_window(topology, options)) {}

void AdaptiveWindow::add(std::span<const uint32_t> counts, Duration covered, TimePoint now) {
  std::visit([&](auto& window) { window.add(counts, covered, now); }, window_);
  changed_ = changed_ || std::holds_alternative<LoadWindow>(window_);
}

void AdaptiveWindow::add_all(const Arrivals& arrivals) {
  std::get<LoadForecast>(window_).add(arrivals);
}

void AdaptiveWindow::jump(std::span<const double> loads, Duration covered, TimePoint now) {
  if (auto* const forecast = std::get_if<LoadForecast>(&window_)) {
    forecast->jump(loads, covered, now);
  } else {
    std::get<LoadWindow>(window_).restart(loads, covered, now);
  }
  changed_ = true;
}

bool AdaptiveWindow::tick(TimePoint now) {
  auto* const forecast = std::get_if<LoadForecast>(&window_);
  const bool folded = forecast && forecast->tick(now);
  return std::exchange(changed_, false) || folded;
}

void AdaptiveWindow::read(TimePoint now, std::span<double> loads) const {
  std::visit([&](const auto& window) { window.read(now, loads); }, window_);
}

double AdaptiveWindow::tokens(TimePoint now) const {
  return std::visit([&](const auto& window) { return window.tokens(now); }, window_);
}

Duration AdaptiveWindow::half_life() const {
  return std::visit([](const auto& window) { return window.half_life(); }, window_);
}

bool AdaptiveWindow::read_steady(std::span<double> loads) const {
  const auto* const forecast = std::get_if<LoadForecast>(&window_);
  if (forecast) forecast->read_steady(loads);
  return forecast != nullptr;
}

double AdaptiveWindow::forecast_error() const {
  const auto* const forecast = std::get_if<LoadForecast>(&window_);
  return forecast ? forecast->error() : 0;
}

double AdaptiveWindow::newest_share() const {
  const auto* const forecast = std::get_if<LoadForecast>(&window_);
  return forecast ? forecast->newest_share() : 0;
}

}  // namespace eplbd
