// The makers of the policies, one file each; make_balancer() chooses among them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "core/balance/balancer.h"

namespace eplbd {

std::unique_ptr<Balancer> make_deepseek(const BalancerOptions& options);
std::unique_ptr<Balancer> make_evolved(const BalancerOptions& options);
std::unique_ptr<Balancer> make_joint(const BalancerOptions& options);
std::unique_ptr<Balancer> make_incremental(const BalancerOptions& options);

}  // namespace eplbd
