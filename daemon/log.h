// The log of the process, on stderr. Text has a time stamp unless journald adds its own; JSON is an
// object a line. Core and config never log.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "config/config.h"

namespace eplbd {

void set_up_logging(const LogOptions& options);
bool logs(LogLevel level);
void log(LogLevel level, std::string_view message);

// Lets something that strangers cause be logged, but not at their pace: at most `lines` in
// `interval`, counted from the first of them.
class LogLimit {
 public:
  explicit LogLimit(std::chrono::seconds interval = std::chrono::seconds(10), int lines = 1)
      : interval_(interval), lines_(lines) {}
  // Nothing: do not log this one; else what to say behind it of those that were left out.
  std::optional<std::string> admit(std::chrono::steady_clock::time_point now);

 private:
  std::chrono::seconds interval_;
  int lines_;
  std::optional<std::chrono::steady_clock::time_point> began_;
  int logged_ = 0;  // since then
  uint64_t left_out_ = 0;
};

}  // namespace eplbd
