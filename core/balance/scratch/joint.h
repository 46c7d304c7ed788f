// `joint`: our policy from scratch. For each layer: groups to nodes, the best packings first; in
// each node the search, until the peak is at what the fullest node allows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "core/balance/balancer.h"
#include "core/balance/scratch/constants.h"
#include "core/balance/scratch_policy.h"

namespace eplbd {

// As make_joint() of core/balance/policies.h, with other constants.
std::unique_ptr<ScratchPolicy> make_joint(const BalancerOptions& options,
                                          const SearchConstants& constants,
                                          std::function<bool()> keep_searching);

}  // namespace eplbd
