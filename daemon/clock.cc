// SPDX-License-Identifier: Apache-2.0
#include "daemon/clock.h"

#include <chrono>

namespace eplbd {

Now read_clock() {
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  return {std::chrono::steady_clock::now(), std::chrono::duration<double>(wall).count()};
}

}  // namespace eplbd
