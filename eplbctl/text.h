// Numbers and times as people read them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <ctime>
#include <string>

#include "daemon/words.h"

namespace eplbd {

using fmt::format;

// Unix seconds as this place's clock shows them; `pattern` is strftime's.
inline std::string local_time(double unix_seconds, const char* pattern) {
  const auto seconds = static_cast<std::time_t>(unix_seconds);
  std::tm local{};
  localtime_r(&seconds, &local);
  char text[32];
  return {text, std::strftime(text, sizeof(text), pattern, &local)};
}

}  // namespace eplbd
