// The messages of one type that one source sends, and where the next one stands among them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "core/model/time.h"
#include "core/workers/worker_report.h"

namespace eplbd {

// Where a message stands in its stream.
struct Standing {
  std::optional<RejectReason> rejected;
  bool duplicate = false;
  bool first = false;     // of this source, of a new epoch, or of numbers that started over
  bool baseline = false;  // with first: it follows messages that it cannot be compared with
  bool restarted = false;
  uint64_t lost = 0;
};

class Stream {
 public:
  bool heard() const { return heard_; }
  uint64_t epoch() const { return epoch_; }
  double ts() const { return ts_; }     // newest, the worker's clock
  TimePoint at() const { return at_; }  // when the newest was heard
  // Seconds of the worker's clock a second of ours, over the last ten or more; 0: not known.
  double pace() const { return pace_; }

  // `other` is the source's other stream: publishers number both types by one sequence, but a
  // source may also use one publisher for each. `ts` (nothing: it does not matter) must grow. After
  // `timeout` of silence numbers may start over: no message decides for good which ones count.
  Standing place(const Stream& other, uint64_t epoch, uint64_t sequence, std::optional<double> ts,
                 TimePoint now, Duration timeout) const;
  void accept(const Standing& standing, uint64_t epoch, uint64_t sequence, double ts,
              TimePoint now);
  // A message that was dropped for its content has still arrived: the next one follows no gap.
  void note_dropped(const Standing& standing, uint64_t sequence);

 private:
  Standing place_in_epoch(const Stream& other, uint64_t sequence, std::optional<double> ts,
                          bool silent) const;

  bool heard_ = false;
  uint64_t epoch_ = 0;
  uint64_t sequence_ = 0;  // newest
  double ts_ = 0;
  TimePoint at_{};
  double paced_ts_ = 0;  // since when pace_ is measured
  TimePoint paced_at_{};
  double pace_ = 0;
};

// A clock's reading whose seconds a double can still tell apart.
bool is_clock_reading(double seconds);

}  // namespace eplbd
