// SPDX-License-Identifier: Apache-2.0
#include "core/workers/stream.h"

#include <algorithm>
#include <cmath>

namespace eplbd {
namespace {

// A wider gap is none: twelve days at a message a second are not lost between two of them.
constexpr uint64_t kWidestGap = uint64_t{1} << 20;
// A clock that leaps further between two messages was set, or never told the time.
constexpr double kLongestLeap = 86400;  // seconds
constexpr Duration kPaceSpan = std::chrono::seconds(10);

uint64_t lost_in(uint64_t gap) { return gap <= kWidestGap ? gap : 0; }

}  // namespace

bool is_clock_reading(double seconds) {
  return std::isfinite(seconds) && std::abs(seconds) < 9007199254740992.0;  // 2^53
}

Standing Stream::place(const Stream& other, uint64_t epoch, uint64_t sequence,
                       std::optional<double> ts, TimePoint now, Duration timeout) const {
  Standing standing;
  const bool silent = now - at_ > timeout;
  if (heard_ && epoch < epoch_ && !silent) {
    standing.rejected = RejectReason::source_conflict;
    return standing;
  }
  if (heard_ && epoch == epoch_) return place_in_epoch(other, sequence, ts, silent);
  const bool shared = other.heard_ && other.epoch_ == epoch;
  standing.first = true;
  standing.restarted = (heard_ || other.heard_) && !shared;
  if (standing.restarted) standing.lost = lost_in(sequence);
  if (shared && sequence > other.sequence_) standing.lost = lost_in(sequence - other.sequence_ - 1);
  return standing;
}

Standing Stream::place_in_epoch(const Stream& other, uint64_t sequence, std::optional<double> ts,
                                bool silent) const {
  Standing standing;
  const bool leaps = ts && (*ts <= ts_ || *ts - ts_ > kLongestLeap);
  const bool far = sequence > sequence_ && sequence - sequence_ > kWidestGap;
  if (silent && (leaps || far || sequence <= sequence_)) {
    standing.first = standing.baseline = true;
    return standing;
  }
  if (sequence <= sequence_) {
    standing.duplicate = true;
    return standing;
  }
  if (far) {
    standing.rejected = RejectReason::bad_value;
    return standing;
  }
  if (leaps) standing.rejected = RejectReason::bad_timestamp;
  const bool shared = other.heard_ && other.epoch_ == epoch_;
  const uint64_t newest = shared ? std::max(sequence_, other.sequence_) : sequence_;
  if (sequence > newest) standing.lost = lost_in(sequence - newest - 1);
  return standing;
}

void Stream::accept(const Standing& standing, uint64_t epoch, uint64_t sequence, double ts,
                    TimePoint now) {
  if (standing.first) {
    paced_ts_ = ts;
    paced_at_ = now;
    pace_ = 0;
  } else if (now - paced_at_ >= kPaceSpan) {
    pace_ = (ts - paced_ts_) / to_seconds(now - paced_at_);
    paced_ts_ = ts;
    paced_at_ = now;
  }
  heard_ = true;
  epoch_ = epoch;
  sequence_ = sequence;
  ts_ = ts;
  at_ = now;
}

void Stream::note_dropped(const Standing& standing, uint64_t sequence) {
  const bool placed = !standing.rejected || standing.rejected == RejectReason::bad_timestamp;
  if (placed && !standing.duplicate && !standing.first && standing.lost == 0) sequence_ = sequence;
}

}  // namespace eplbd
