// SPDX-License-Identifier: Apache-2.0
#include "core/balance/balancer.h"

#include <stdexcept>

#include "core/balance/policies.h"

namespace eplbd {

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
