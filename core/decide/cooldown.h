// What holds updates back after one, and what is answered in spite of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/decide/answer.h"
#include "core/decide/situation.h"
#include "core/model/time.h"

namespace eplbd {

// Of the cooldown since the last placement was applied, and of a fresh start's wait; 0: over.
Duration cooldown_left(const Situation& situation, TimePoint now);
// Since the last placement was applied.
bool cooling_down(const Situation& situation, TimePoint now);

// A fresh start waits for workers to say what they run.
Rule check_hold(const Situation& situation, TimePoint now);
// Nothing is decided from what a part of the sources told of a jump. Once all have, the cooldown
// does not hold it back, unless the update before the last did not pay: then the load swings faster
// than it can be followed.
Rule check_cooldown(const Situation& situation, TimePoint now);

}  // namespace eplbd
