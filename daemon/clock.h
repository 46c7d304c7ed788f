// The one place where the daemon reads clocks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

#include "core/model/time.h"

namespace eplbd {

inline Now read_clock() {
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  return {std::chrono::steady_clock::now(), std::chrono::duration<double>(wall).count()};
}

}  // namespace eplbd
