// What workers send, message by message, for whoever connects one: right or wrong, and why. Kept
// only while somebody asks: nobody else pays for it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "core/model/time.h"
#include "core/workers/group_state.h"
#include "core/workers/source_table.h"
#include "core/workers/worker_report.h"
#include "daemon/rejections.h"

namespace eplbd {

class ReceivedLog {
 public:
  static constexpr Duration kForgotten = std::chrono::seconds(10);

  struct Entry {
    uint64_t number = 0;  // from 1
    double unix_seconds = 0;
    std::string sender;
    std::string type;  // counts, state; empty: it could not be read
    bool taken = false;
    std::string text;
  };

  bool asked(TimePoint now) const { return asked_ && now - *asked_ < kForgotten; }
  // Only while asked.
  void counts(const CountsReport& report, const IngestResult& result, Now now);
  void state(const StateReport& report, const ObserveResult& result, Now now);
  void rejected(const RejectedSender& sender, Now now);

  // What is kept, oldest first, and from now on what comes.
  const std::deque<Entry>& ask(TimePoint now);

 private:
  void add(Entry entry);

  std::optional<TimePoint> asked_;
  uint64_t numbered_ = 0;
  std::deque<Entry> entries_;
};

}  // namespace eplbd
