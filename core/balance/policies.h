// The makers of the policies, one file each; make_balancer() and make_scratch_policy() choose.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "core/balance/balancer.h"
#include "core/balance/scratch_policy.h"

namespace eplbd {

std::unique_ptr<ScratchPolicy> make_deepseek(const BalancerOptions& options);
std::unique_ptr<ScratchPolicy> make_evolved(const BalancerOptions& options);
// `keep_searching` is a time budget (core reads no clock): after its own end it goes on searching
// the layers that are off their bound while this says true, asked every few dozen microseconds.
// More time never makes a layer worse. Empty: it stops at its own end.
std::unique_ptr<ScratchPolicy> make_joint(const BalancerOptions& options,
                                          std::function<bool()> keep_searching = {});
std::unique_ptr<Balancer> make_incremental(const BalancerOptions& options);

}  // namespace eplbd
