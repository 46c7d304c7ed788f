// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch_policy.h"

#include <utility>

#include "core/balance/duplicates.h"
#include "core/balance/matching.h"

namespace eplbd {
namespace {

class Online final : public Balancer {
 public:
  explicit Online(std::unique_ptr<ScratchPolicy> policy) : policy_(std::move(policy)) {}

  Proposal propose(const BalanceRequest& request) const override {
    const Topology& topology = request.topology;
    const auto& loads = request.outlook.loads;
    const ScratchPlacement placed = policy_->place(topology, loads, request.gpus_down);
    const Placement repaired =
        repair_duplicates(topology, placed.placement, loads, placed.hierarchical);
    return {
        match_gpus(topology, request.in_force, repaired, request.gpus_down, placed.hierarchical),
        placed.hierarchical ? GroupRule::one_node : GroupRule::none};
  }

 private:
  std::unique_ptr<ScratchPolicy> policy_;
};

}  // namespace

std::unique_ptr<Balancer> make_online(std::unique_ptr<ScratchPolicy> policy) {
  return std::make_unique<Online>(std::move(policy));
}

}  // namespace eplbd
