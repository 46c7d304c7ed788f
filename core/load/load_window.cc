// SPDX-License-Identifier: Apache-2.0
#include "core/load/load_window.h"

#include <cassert>
#include <cmath>

namespace eplbd {
namespace {

// Half-lives after which the origin moves: 2^64 times the tokens of a whole deployment's life is
// far from what a double holds.
constexpr double kLongestAge = 64;

}  // namespace

LoadWindow::LoadWindow(size_t cells, Duration half_life) : half_life_(half_life), cells_(cells) {
  assert(cells > 0 && half_life > Duration{0});
}

void LoadWindow::add(std::span<const uint32_t> counts, Duration covered, TimePoint now) {
  assert(counts.size() == cells_.size() && covered >= Duration{0});
  if (!started_) {
    started_ = true;
    origin_ = now;
  }
  if (age(now) > kLongestAge) renormalise(now);
  const double decay_per_second = std::log(2.0) / to_seconds(half_life_);
  const double scale = std::exp2(age(now)) * spread_weight(decay_per_second, covered);
  uint64_t sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    cells_[i] += scale * counts[i];
    sum += counts[i];
  }
  tokens_ += scale * static_cast<double>(sum);
}

void LoadWindow::restart(std::span<const double> loads, Duration covered, TimePoint now) {
  assert(loads.size() == cells_.size());
  started_ = true;
  origin_ = now;
  tokens_ = 0;
  const double scale = spread_weight(std::log(2.0) / to_seconds(half_life_), covered);
  for (size_t i = 0; i < loads.size(); ++i) {
    cells_[i] = scale * loads[i];
    tokens_ += cells_[i];
  }
}

void LoadWindow::read(TimePoint now, std::span<double> loads) const {
  assert(loads.size() == cells_.size());
  const double scale = std::exp2(-age(now));
  for (size_t i = 0; i < loads.size(); ++i) loads[i] = scale * cells_[i];
}

double LoadWindow::tokens(TimePoint now) const { return std::exp2(-age(now)) * tokens_; }

double LoadWindow::age(TimePoint now) const {
  // Before the first counts there is nothing to decay.
  return started_ ? to_seconds(now - origin_) / to_seconds(half_life_) : 0;
}

void LoadWindow::renormalise(TimePoint now) {
  const double scale = std::exp2(-age(now));
  for (double& cell : cells_) cell *= scale;
  tokens_ *= scale;
  origin_ = now;
}

double spread_weight(double decay_per_second, Duration covered) {
  const double x = decay_per_second * to_seconds(covered);
  return x > 0 ? -std::expm1(-x) / x : 1;
}

}  // namespace eplbd
