// The one place where the daemon reads clocks. tests/simulation links its own, which it sets.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/model/time.h"

namespace eplbd {

Now read_clock();

}  // namespace eplbd
