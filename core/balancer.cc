// SPDX-License-Identifier: Apache-2.0
#include "core/balancer.h"

#include <stdexcept>

#include "core/policies.h"

namespace eplbd {

std::string_view to_string(Policy policy) {
  switch (policy) {
    case Policy::deepseek:
      return "deepseek";
    case Policy::evolved:
      return "evolved";
    case Policy::joint:
      return "joint";
    case Policy::incremental:
      return "incremental";
  }
  throw std::logic_error("a policy without a name");
}

std::optional<Policy> policy_from(std::string_view name) {
  for (const Policy policy :
       {Policy::deepseek, Policy::evolved, Policy::joint, Policy::incremental}) {
    if (name == to_string(policy)) return policy;
  }
  return std::nullopt;
}

std::unique_ptr<Balancer> make_balancer(const BalancerOptions& options) {
  switch (options.policy) {
    case Policy::deepseek:
      return make_deepseek(options);
    case Policy::evolved:
      return make_evolved(options);
    case Policy::joint:
      return make_joint(options);
    case Policy::incremental:
      return make_incremental(options);
  }
  throw std::logic_error("a policy without a maker");
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
