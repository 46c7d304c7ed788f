// SPDX-License-Identifier: Apache-2.0
#include "core/load/load_forecast.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "core/load/load_window.h"
#include "core/model/vector_kernel.h"

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

// What came goes into what a memory holds, in one pass: how far they lie apart, squared.
struct TakeIn {
  static constexpr size_t kMostLanes = 16;

  template <typename Registers>
  [[gnu::always_inline]] static double run(std::span<const float> load, std::span<float> held,
                                           float per_token, float kept, float added) {
    using Floats = typename Registers::Floats;
    constexpr size_t kRegisters = kMostLanes / Registers::kLanes;
    Floats sums[kRegisters] = {};
    size_t i = 0;
    for (; i + kMostLanes <= load.size(); i += kMostLanes) {
      for (size_t r = 0; r < kRegisters; ++r) {
        const size_t at = i + r * Registers::kLanes;
        Floats came, before;
        eplbd::load(came, &load[at]);
        eplbd::load(before, &held[at]);
        const Floats error = came - per_token * before;
        sums[r] += error * error;
        store(&held[at], kept * before + added * came);
      }
    }
    double squares = 0;
    for (const Floats& sum : sums) {
      for (size_t lane = 0; lane < Registers::kLanes; ++lane) squares += sum[lane];
    }
    for (; i < load.size(); ++i) {
      const float error = load[i] - per_token * held[i];
      squares += error * error;
      held[i] = kept * held[i] + added * load[i];
    }
    return squares;
  }
};

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

void LoadForecast::add_pending(std::span<const uint32_t> counts, Duration covered,
                               Duration longest) {
  assert(counts.size() == pending_.size());
  uint64_t sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    pending_[i] += counts[i];
    sum += counts[i];
  }
  pending_tokens_ += static_cast<double>(sum);
  pending_covered_ += static_cast<double>(sum) * to_seconds(covered);
  pending_longest_ = std::max(pending_longest_, longest);
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
  normalise_pending(load, jumped);
  std::vector<double> position(space_.directions());
  space_.project(load, position);
  const double elapsed = folded_at_ ? to_seconds(now - *folded_at_) : 0;
  const double doubt = surprise_ < kJump ? 0 : surprise_;
  for (Memory& memory : memories_) take_in(load, position, elapsed, doubt, memory);
  take_in(load, {}, elapsed, 0, steady_);
  if (folded_at_) {
    inside_ = best(&Memory::inside_error);
    outside_ = best(&Memory::outside_error);
  }
  newest_share_ = std::min(pending_tokens_ / memories_[outside_].tokens, 1.0);
  if (doubt > 0) start_block(kBlockFolds - 1);
  learn(load);
  std::fill(pending_.begin(), pending_.end(), 0.0);
  pending_tokens_ = pending_covered_ = 0;
  pending_longest_ = Duration{0};
  folded_at_ = now;
}

// What came, in mean expert loads. A layer without tokens says nothing: it did as was expected.
void LoadForecast::normalise_pending(std::span<float> load, bool jumped) {
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
      return;
    }
    if (usual_error_ == 0) {
      usual_error_ = weighed;
      squared_error_ = squares;
      return;
    }
    const double kept = weighed < usual_error_ ? kErrorKept : kUsualKept;
    usual_error_ = kept * usual_error_ + (1 - kept) * std::min(weighed, 2 * usual_error_);
    squared_error_ = kErrorKept * squared_error_ + (1 - kErrorKept) * squares;
  }
}

// Scores what the memory expected, and takes in what came. In doubt, after a jump, what it held is
// worth no more than as much as the usual error is against this one (the gain of a Kalman filter,
// with the excess as the variance of what it knew).
void LoadForecast::take_in(std::span<const float> load, std::span<const double> position,
                           double elapsed, double doubt, Memory& memory) const {
  const double half_life = to_seconds(memory.half_life);
  const Duration covered = from_seconds(pending_covered_ / pending_tokens_);
  const double weight = spread_weight(std::log(2.0) / half_life, covered);
  const double per_token = memory.tokens > 0 ? 1 / memory.tokens : 0;
  const double believed = doubt > 0 ? std::min(per_token * pending_tokens_ / doubt, 1.0) : 1;
  const auto kept = static_cast<float>(believed * std::exp2(-elapsed / half_life));
  const auto added = static_cast<float>(pending_tokens_ * weight);
  const double squares =
      run_widest<TakeIn>(load, memory.loads, static_cast<float>(per_token), kept, added);
  double inside = 0;
  for (size_t k = 0; k < position.size(); ++k) {
    const double error = position[k] - per_token * memory.position[k];
    inside += error * error;
    memory.position[k] = kept * memory.position[k] + added * position[k];
  }
  memory.inside_error = kScoreKept * memory.inside_error + pending_tokens_ * inside;
  memory.outside_error = kScoreKept * memory.outside_error + pending_tokens_ * (squares - inside);
  memory.tokens = kept * memory.tokens + added;
  for (size_t layer = 0; layer < layers_; ++layer) {
    memory.layer_tokens[layer] =
        kept * memory.layer_tokens[layer] + weight * pending_layers_[layer];
  }
}

size_t LoadForecast::best(double Memory::*error) const {
  const auto less = [error](const Memory& a, const Memory& b) { return a.*error < b.*error; };
  return static_cast<size_t>(std::min_element(memories_.begin(), memories_.end(), less) -
                             memories_.begin());
}

void LoadForecast::start_block(int folds) {
  std::fill(block_.begin(), block_.end(), 0.0F);
  block_tokens_ = 0;
  block_folds_ = folds;
}

void LoadForecast::learn(std::span<const float> load) {
  const auto weight = static_cast<float>(pending_tokens_);
  for (size_t i = 0; i < load.size(); ++i) block_[i] += weight * load[i];
  block_tokens_ += pending_tokens_;
  if (++block_folds_ < kBlockFolds) return;
  for (float& value : block_) value /= static_cast<float>(block_tokens_);
  space_.add(block_);
  start_block(0);
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
