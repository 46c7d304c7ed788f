// SPDX-License-Identifier: Apache-2.0
#include "core/load/jump_detector.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

namespace eplbd {
namespace {

// Normal quantile of one in a million.
constexpr double kChance = 4.753;
// Reports that a source's usual surprise remembers.
constexpr int32_t kRemembered = 64;
// Of fewer nothing is known of their spread.
constexpr int32_t kLeastReports = 3;
// Where the load since is extrapolated from reports that all hold much of the one before.
constexpr double kFurthest = 2;
// Parts that vary less, against their mean square, tell nothing of it.
constexpr double kAlike = 1e-3;

// Student's quantile for that chance (Wallace's approximation, inverted): the fewer reports a
// spread was learned from, the less it is to be trusted.
double quantile(int32_t reports) {
  const double freedom = reports - 1;
  const double z = kChance * (8 * freedom + 3) / (8 * freedom + 1);
  return std::sqrt(freedom * std::expm1(z * z / freedom));
}

double sum(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

std::optional<double> UsualSurprise::most(double spread_by_chance) const {
  if (reports_ < kLeastReports) return std::nullopt;
  return mean_ + quantile(reports_) * std::sqrt(variance_ + spread_by_chance * spread_by_chance);
}

void UsualSurprise::add(double surprise, uint64_t jumps) {
  if (newest_ && jumps == jumps_) {
    reports_ = std::min(reports_ + 1, kRemembered);
    const double weight = 1.0 / reports_;
    const double error = *newest_ - mean_;
    mean_ += weight * error;
    variance_ = (1 - weight) * (variance_ + weight * error * error);
  }
  newest_ = surprise;
  jumps_ = jumps;
}

JumpDetector::JumpDetector(const Topology& topology)
    : layers_(topology.layers),
      experts_(topology.logical_experts),
      expected_(layers_ * experts_),
      known_(layers_),
      chance_(layers_),
      chance_squares_(layers_),
      all_(layers_ * experts_),
      late_(layers_ * experts_),
      tokens_{},
      noise_{} {}

void JumpDetector::expect(std::span<const double> loads) {
  assert(loads.size() == expected_.size());
  if (suspected_at_) return;
  for (size_t layer = 0; layer < layers_; ++layer) {
    const auto row = loads.subspan(layer * experts_, experts_);
    const double tokens = sum(row);
    double chance = 0;
    double squares = 0;
    for (size_t expert = 0; expert < experts_; ++expert) {
      const double share = tokens > 0 ? row[expert] / tokens : 0;
      const double term = share * (1 - share);
      expected_[layer * experts_ + expert] = static_cast<float>(share);
      chance += term;
      squares += term * term;
    }
    known_[layer] = tokens;
    chance_[layer] = chance;
    chance_squares_[layer] = squares;
  }
}

// A cell's count and what is expected of it are both counted: their variances add.
JumpDetector::Distance JumpDetector::distance(const Arrivals& message) const {
  Distance distance;
  double variance = 0;
  for (size_t layer = 0; layer < layers_; ++layer) {
    const auto tokens = static_cast<double>(message.layer_tokens()[layer]);
    if (tokens == 0 || known_[layer] == 0) continue;
    distance.squared += message.layer_squares()[layer];
    const double scale = tokens * (1 + tokens / known_[layer]);
    distance.by_chance += scale * chance_[layer];
    // The variance of a squared Poisson error of variance v is 2 v^2 + v.
    variance += 2 * scale * scale * chance_squares_[layer] + scale * chance_[layer];
  }
  if (distance.by_chance > 0) distance.spread = std::sqrt(variance) / distance.by_chance;
  return distance;
}

void JumpDetector::add(const Arrivals& message, Duration covered, TimePoint now,
                       UsualSurprise& usual) {
  assert(message.counts().size() == expected_.size());
  const Distance found = distance(message);
  if (found.squared == 0 || found.by_chance == 0) return;  // idle, or nothing is expected yet
  const double surprise = std::log(found.squared / found.by_chance);
  const double most = usual.most(found.spread).value_or(std::numeric_limits<double>::infinity());
  if (!suspected_at_) {
    usual.add(std::min(surprise, most), jumps_);
    if (surprise > most) {
      suspected_at_ = gathered_since_ = now;
      jumped_at_ = std::max(reported_at_, now - covered);
    }
  }
  reported_at_ = now;
  if (!suspected_at_) return;
  const double part = covered > Duration{0}
                          ? std::clamp(to_seconds(now - jumped_at_) / to_seconds(covered), 0.0, 1.0)
                          : 1;
  whole_ = whole_ || now - *suspected_at_ >= covered;
  const auto layers = message.layer_tokens();
  const double tokens = std::accumulate(layers.begin(), layers.end(), 0.0);
  gather(message.counts(), tokens, part, found.by_chance * std::exp(usual.mean()));
  if (surprise > most) surprising_tokens_ += tokens;
}

void JumpDetector::gather(std::span<const uint32_t> counts, double tokens, double part,
                          double noise) {
  ++gathered_;
  for (size_t i = 0; i < counts.size(); ++i) {
    all_[i] += counts[i];
    late_[i] += part * counts[i];
  }
  double weight = 1;
  for (size_t power = 0; power < tokens_.size(); ++power) {
    tokens_[power] += weight * tokens;
    noise_[power] += weight * noise;
    weight *= part;
  }
}

std::optional<Duration> JumpDetector::settle(TimePoint now, std::span<double> loads) {
  std::optional<Duration> ago;
  const bool jumped = suspected_at_ && 2 * surprising_tokens_ > tokens_[0];
  const bool again = jumped && !again_ && gathered_ > 1 && alike();
  if (jumped && !again) {
    read_load(loads);
    ago = now - jumped_at_;
    ++jumps_;
  }
  if (again) {
    gathered_since_ = now;
    jumped_at_ = *suspected_at_;
  } else {
    suspected_at_.reset();
    gathered_since_.reset();
  }
  gathered_ = 0;
  whole_ = false;
  again_ = again;
  std::fill(all_.begin(), all_.end(), 0.0);
  std::fill(late_.begin(), late_.end(), 0.0);
  tokens_ = noise_ = {};
  surprising_tokens_ = 0;
  return ago;
}

// All of the reports lie equally far after the jump.
bool JumpDetector::alike() const {
  const auto& [t0, t1, t2] = tokens_;
  return t0 * t2 - t1 * t1 < kAlike * t0 * t2;
}

// How far reports hold the load before the jump beside the one since: 0: not at all; 1: for as long
// as they cover the time before it; more: it came later than thought. A report with `part` lies
// 1 - s + s x part of the way from the one to the other, for the s wanted; so the sums of all
// reports' differences, and of those weighed by part, are in a ratio that tells it.
double JumpDetector::straddling(double parallel, double late_squares) const {
  const auto& [t0, t1, t2] = tokens_;
  if (alike() || late_squares <= 0) return 0;
  const double ratio = parallel / late_squares;
  const double all = t0 - ratio * t1;
  const double none = ratio * t2 - t1;
  if (all <= 0) return 0;
  const double furthest = whole_ ? 1 : kFurthest;
  return all + none > all / furthest ? all / (all + none) : furthest;
}

// Least squares: each report's difference from the load expected, by how far it went.
void JumpDetector::read_load(std::span<double> loads) const {
  const auto row_of = [&](const auto& cells, size_t layer) {
    return std::span(cells).subspan(layer * experts_, experts_);
  };
  double parallel = -noise_[1];
  double late_squares = -noise_[2];
  for (size_t layer = 0; layer < layers_; ++layer) {
    const auto all = row_of(all_, layer);
    const auto late = row_of(late_, layer);
    const auto shares = row_of(expected_, layer);
    const double all_tokens = sum(all);
    const double late_tokens = sum(late);
    for (size_t expert = 0; expert < experts_; ++expert) {
      const double late_error = late[expert] - late_tokens * shares[expert];
      parallel += (all[expert] - all_tokens * shares[expert]) * late_error;
      late_squares += late_error * late_error;
    }
  }
  const double straddle = straddling(parallel, late_squares);
  const double rest = 1 - straddle;
  const double worth = (rest * rest * tokens_[0] + 2 * rest * straddle * tokens_[1] +
                        straddle * straddle * tokens_[2]) /
                       tokens_[0];
  const double further = std::max(straddle, 1.0);
  for (size_t layer = 0; layer < layers_; ++layer) {
    const auto all = row_of(all_, layer);
    const auto late = row_of(late_, layer);
    const auto shares = row_of(expected_, layer);
    const double all_tokens = sum(all);
    const double moved = rest * all_tokens + straddle * sum(late);
    for (size_t expert = 0; expert < experts_; ++expert) {
      const double error = rest * all[expert] + straddle * late[expert] - moved * shares[expert];
      loads[layer * experts_ + expert] =
          std::max(worth * all_tokens * shares[expert] + further * error, 0.0);
    }
  }
}

}  // namespace eplbd
