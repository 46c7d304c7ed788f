// SPDX-License-Identifier: Apache-2.0
#include "core/balance/balancer.h"

#include <stdexcept>
#include <utility>

#include "core/balance/policies.h"

namespace eplbd {

std::unique_ptr<ScratchPolicy> make_scratch_policy(const BalancerOptions& options) {
  switch (options.policy) {
    case Policy::deepseek:
      return make_deepseek(options);
    case Policy::evolved:
      return make_evolved(options);
    case Policy::joint:
      return make_joint(options);
    case Policy::incremental:
      return nullptr;
  }
  throw std::logic_error("a policy without a maker");
}

std::unique_ptr<Balancer> make_balancer(const BalancerOptions& options) {
  if (auto policy = make_scratch_policy(options)) return make_online(std::move(policy));
  return make_incremental(options);
}

bool places_hierarchically(const BalancerOptions& options, const Topology& topology) {
  switch (options.hierarchical) {
    case Hierarchical::automatic:
      return options.policy != Policy::incremental && topology.divides_hierarchically();
    case Hierarchical::yes:
      return topology.divides_hierarchically();
    case Hierarchical::no:
      return false;
  }
  throw std::logic_error("neither automatic, yes nor no");
}

}  // namespace eplbd
