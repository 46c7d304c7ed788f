// A replica of an expert that has several becomes another expert's: what changes counts, where
// exchanges cannot lower the fullest GPU.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/balance/scratch/region_state.h"

namespace eplbd {

// The replacement that lowers this GPU, the fullest, most: one of its own replicas for something
// lighter, or another GPU's for one more replica of what it holds. Already carried out; false: each
// would make some GPU as full.
bool replace_for(int32_t gpu, RegionState& state);

}  // namespace eplbd
