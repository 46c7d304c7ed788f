// The log of the process, on stderr. Text has a time stamp unless journald adds its own; JSON is an
// object a line. Core and config never log.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "config/config.h"

namespace eplbd {

void set_up_logging(const LogOptions& options);
bool logs(LogLevel level);
void log(LogLevel level, std::string_view message);

// Lets something that strangers cause be logged, but not at their pace: the first at once, then at
// most one in `interval`.
class LogLimit {
 public:
  explicit LogLimit(std::chrono::seconds interval = std::chrono::seconds(10))
      : interval_(interval) {}
  // Whether to log this one; if so, how many were left out since the last.
  std::optional<uint64_t> admit(std::chrono::steady_clock::time_point now) {
    if (logged_ && now - *logged_ < interval_) {
      ++left_out_;
      return std::nullopt;
    }
    logged_ = now;
    const uint64_t count = left_out_;
    left_out_ = 0;
    return count;
  }

 private:
  std::chrono::seconds interval_;
  std::optional<std::chrono::steady_clock::time_point> logged_;
  uint64_t left_out_ = 0;
};

}  // namespace eplbd
