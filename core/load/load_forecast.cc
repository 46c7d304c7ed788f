// SPDX-License-Identifier: Apache-2.0
#include "core/load/load_forecast.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "core/load/load_window.h"

namespace eplbd {
namespace {

constexpr double kHalfLives[] = {0.5, 1, 2, 4, 8, 16, 32, 64, 256};  // seconds
constexpr size_t kFirst = 3;  // in force until there is a score
// A report that covers more is folded when it comes.
constexpr Duration kLongestWait = std::chrono::seconds(10);
// A clock's jitter does not postpone a fold.
constexpr double kEarly = 0.95;
// Each fold is worth this much less, as a score, than the one after.
constexpr double kScoreKept = 0.98;
// The same for what error() tells, which must follow a jump at once.
constexpr double kErrorKept = 0.7;
// Where a single fold is all that is known, it misses the next by its own noise and by that one's.
constexpr double kFirstError = 2;
constexpr double kUsualKept = 0.95;
constexpr double kSteadyHalfLife = 6;  // seconds
// An error this much over the usual one, and twice it, is a jump of the load.
constexpr double kJump = 0.5;
// Folds averaged before the space learns from them: a single one is mostly noise.
constexpr int kBlockFolds = 4;

}  // namespace

LoadForecast::LoadForecast(const Topology& topology)
    : layers_(topology.layers),
      experts_(topology.logical_experts),
      space_(layers_ * experts_),
      inside_(kFirst),
      outside_(kFirst),
      pending_(layers_ * experts_),
      pending_layers_(layers_),
      block_(layers_ * experts_) {
  const auto memory_of = [&](double seconds) {
    Memory memory;
    memory.half_life = from_seconds(seconds);
    memory.layer_tokens.resize(layers_);
    memory.loads.resize(layers_ * experts_);
    return memory;
  };
  for (const double seconds : kHalfLives) memories_.push_back(memory_of(seconds));
  steady_ = memory_of(kSteadyHalfLife);
}

void LoadForecast::add(std::span<const uint32_t> counts, Duration covered, TimePoint) {
  pending_covered_ += add(counts) * to_seconds(covered);
  pending_longest_ = std::max(pending_longest_, covered);
}

void LoadForecast::add(const Arrivals& arrivals) {
  add(arrivals.sums());
  pending_covered_ += arrivals.token_seconds();
  pending_longest_ = std::max(pending_longest_, arrivals.longest());
}

double LoadForecast::add(std::span<const uint32_t> counts) {
  assert(counts.size() == pending_.size());
  uint64_t sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    pending_[i] += counts[i];
    sum += counts[i];
  }
  pending_tokens_ += static_cast<double>(sum);
  return static_cast<double>(sum);
}

bool LoadForecast::tick(TimePoint now) {
  if (pending_tokens_ == 0) return false;
  const Duration wait = std::min(pending_longest_, kLongestWait);
  if (folded_at_ && to_seconds(now - *folded_at_) < kEarly * to_seconds(wait)) return false;
  fold(now, false);
  return true;
}

void LoadForecast::jump(std::span<const double> loads, Duration covered, TimePoint now) {
  std::copy(loads.begin(), loads.end(), pending_.begin());
  pending_tokens_ = std::accumulate(loads.begin(), loads.end(), 0.0);
  pending_covered_ = pending_tokens_ * to_seconds(covered);
  if (pending_tokens_ > 0) fold(now, true);
}

void LoadForecast::read(TimePoint now, std::span<double> loads) const {
  std::vector<float> load(pending_.size());
  predict(load);
  const Memory& memory = memories_[outside_];
  const double decay =
      folded_at_ ? std::exp2(-to_seconds(now - *folded_at_) / to_seconds(memory.half_life)) : 0;
  for (size_t layer = 0; layer < layers_; ++layer) {
    const double scale = decay * memory.layer_tokens[layer] / static_cast<double>(experts_);
    for (size_t i = layer * experts_; i < (layer + 1) * experts_; ++i) loads[i] = scale * load[i];
  }
}

void LoadForecast::read_steady(std::span<double> loads) const {
  const Memory& memory = steady_;
  const double scale = 1 / static_cast<double>(experts_);
  for (size_t layer = 0; layer < layers_; ++layer) {
    const double tokens =
        memory.tokens > 0 ? scale * memory.layer_tokens[layer] / memory.tokens : 0;
    for (size_t i = layer * experts_; i < (layer + 1) * experts_; ++i) {
      loads[i] = tokens * memory.loads[i];
    }
  }
}

double LoadForecast::tokens(TimePoint now) const {
  if (!folded_at_) return 0;
  const Memory& memory = memories_[outside_];
  return memory.tokens * std::exp2(-to_seconds(now - *folded_at_) / to_seconds(memory.half_life));
}

double LoadForecast::error() const { return std::sqrt(squared_error_); }

Duration LoadForecast::half_life() const { return memories_[outside_].half_life; }

void LoadForecast::fold(TimePoint now, bool jumped) {
  std::vector<float> load(pending_.size());
  const double tokens = normalise_pending(load, jumped);
  score(load, tokens);
  doubt_what_came_before(tokens);
  absorb(load, tokens, now);
  newest_share_ = std::min(tokens / memories_[outside_].tokens, 1.0);
  learn(load, tokens);
  std::fill(pending_.begin(), pending_.end(), 0.0);
  pending_tokens_ = pending_covered_ = 0;
  pending_longest_ = Duration{0};
  folded_at_ = now;
}

// What came, in mean expert loads. A layer without tokens says nothing: it did as was expected.
double LoadForecast::normalise_pending(std::span<float> load, bool jumped) {
  predict(load);
  double squares = 0;
  for (size_t layer = 0; layer < layers_; ++layer) {
    double sum = 0;
    for (size_t i = layer * experts_; i < (layer + 1) * experts_; ++i) sum += pending_[i];
    pending_layers_[layer] = sum;
    if (sum == 0) continue;
    const double scale = static_cast<double>(experts_) / sum;
    for (size_t i = layer * experts_; i < (layer + 1) * experts_; ++i) {
      const double error = scale * pending_[i] - load[i];
      squares += error * error;
      load[i] = static_cast<float>(scale * pending_[i]);
    }
  }
  const auto cells = static_cast<double>(load.size());
  if (!folded_at_) {
    squared_error_ = kFirstError * cells / pending_tokens_;  // as chance has it
  } else {
    squares /= cells;
    const double weighed = squares * pending_tokens_;
    surprise_ = usual_error_ == 0 ? 0 : weighed / usual_error_ - 1;
    if (jumped) {
      squared_error_ = kFirstError * usual_error_ / pending_tokens_;
      return pending_tokens_;
    }
    if (usual_error_ == 0) {
      usual_error_ = weighed;
      squared_error_ = squares;
      return pending_tokens_;
    }
    const double kept = weighed < usual_error_ ? kErrorKept : kUsualKept;
    usual_error_ = kept * usual_error_ + (1 - kept) * std::min(weighed, 2 * usual_error_);
    squared_error_ = kErrorKept * squared_error_ + (1 - kErrorKept) * squares;
  }
  return pending_tokens_;
}

void LoadForecast::score(std::span<const float> load, double tokens) {
  std::vector<double> position(space_.directions());
  space_.project(load, position);
  const auto less = [](double Memory::*error) {
    return [error](const Memory& a, const Memory& b) { return a.*error < b.*error; };
  };
  for (Memory& memory : memories_) {
    if (memory.tokens == 0) return;
    const auto scale = static_cast<float>(1 / memory.tokens);
    float total = 0;
    for (size_t i = 0; i < load.size(); ++i) {
      const float error = load[i] - scale * memory.loads[i];
      total += error * error;
    }
    double inside = 0;
    for (size_t k = 0; k < position.size(); ++k) {
      const double error = position[k] - memory.position[k] / memory.tokens;
      inside += error * error;
    }
    memory.inside_error = kScoreKept * memory.inside_error + tokens * inside;
    memory.outside_error = kScoreKept * memory.outside_error + tokens * (total - inside);
  }
  const auto best = [&](double Memory::*error) {
    const auto found = std::min_element(memories_.begin(), memories_.end(), less(error));
    return static_cast<size_t>(found - memories_.begin());
  };
  inside_ = best(&Memory::inside_error);
  outside_ = best(&Memory::outside_error);
}

// After a jump the past is worth as much as the usual error is against this one (the gain of a
// Kalman filter, with the excess as the variance of what it knew).
void LoadForecast::doubt_what_came_before(double tokens) {
  if (surprise_ < kJump) return;
  for (Memory& memory : memories_) {
    const double most = tokens / surprise_;
    if (memory.tokens <= most) continue;
    const double kept = most / memory.tokens;
    memory.tokens *= kept;
    for (float& value : memory.loads) value *= static_cast<float>(kept);
    for (double& value : memory.layer_tokens) value *= kept;
    for (double& value : memory.position) value *= kept;
  }
  block_folds_ = kBlockFolds - 1;
  block_tokens_ = 0;
  std::fill(block_.begin(), block_.end(), 0.0F);
}

void LoadForecast::absorb(std::span<const float> load, double tokens, TimePoint now) {
  std::vector<double> position(space_.directions());
  space_.project(load, position);
  const double elapsed = folded_at_ ? to_seconds(now - *folded_at_) : 0;
  for (Memory& memory : memories_) absorb(memory, load, position, tokens, elapsed);
  absorb(steady_, load, {}, tokens, elapsed);
}

void LoadForecast::absorb(Memory& memory, std::span<const float> load,
                          std::span<const double> position, double tokens, double elapsed) const {
  const double half_life = to_seconds(memory.half_life);
  const Duration covered = from_seconds(pending_covered_ / pending_tokens_);
  const double weight = spread_weight(std::log(2.0) / half_life, covered);
  const auto decay = static_cast<float>(std::exp2(-elapsed / half_life));
  const auto added = static_cast<float>(tokens * weight);
  for (size_t i = 0; i < load.size(); ++i) {
    memory.loads[i] = decay * memory.loads[i] + added * load[i];
  }
  for (size_t k = 0; k < position.size(); ++k) {
    memory.position[k] = decay * memory.position[k] + added * position[k];
  }
  memory.tokens = decay * memory.tokens + added;
  for (size_t layer = 0; layer < layers_; ++layer) {
    memory.layer_tokens[layer] =
        decay * memory.layer_tokens[layer] + weight * pending_layers_[layer];
  }
}

void LoadForecast::learn(std::span<const float> load, double tokens) {
  const auto weight = static_cast<float>(tokens);
  for (size_t i = 0; i < load.size(); ++i) block_[i] += weight * load[i];
  block_tokens_ += tokens;
  if (++block_folds_ < kBlockFolds) return;
  for (float& value : block_) value /= static_cast<float>(block_tokens_);
  space_.add(block_);
  std::fill(block_.begin(), block_.end(), 0.0F);
  block_tokens_ = 0;
  block_folds_ = 0;
  for (Memory& memory : memories_) {
    memory.position.resize(space_.directions());
    space_.project(memory.loads, memory.position);
  }
}

// The long memory, with its part inside the space replaced by that of the short one.
void LoadForecast::predict(std::span<float> load) const {
  const Memory& outside = memories_[outside_];
  const Memory& inside = memories_[inside_];
  if (outside.tokens == 0) {
    std::fill(load.begin(), load.end(), 1.0F);
    return;
  }
  const auto scale = static_cast<float>(1 / outside.tokens);
  for (size_t i = 0; i < load.size(); ++i) load[i] = scale * outside.loads[i];
  std::vector<double> shift(inside.position.size());
  for (size_t k = 0; k < shift.size(); ++k) {
    shift[k] = inside.position[k] / inside.tokens - outside.position[k] / outside.tokens;
  }
  space_.add_to(load, shift);
  for (float& value : load) value = std::max(value, 0.0F);
}

}  // namespace eplbd
