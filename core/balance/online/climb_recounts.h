// Another number of replicas for some experts at once, where the present numbers keep GPUs full
// however experts are exchanged (see replica_counts.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/balance/online/climb_turnovers.h"
#include "core/balance/online/layer_state.h"
#include "core/balance/online/replica_counts.h"

namespace eplbd {

class RecountSearch {
 public:
  RecountSearch(const LayerState& state, TurnoverSearch& turnovers);

  // Lists the changes that gain `least` each (see ReplicaCounts). Returns by how much they lower
  // the fullest GPU, as far as counts decide it, in mean GPU loads; where that cannot be `worth`,
  // none are listed. Where groups are kept on nodes, replicas change within a node.
  float plan(float least, float worth);

  // Where the next one of the plan is cheapest; nothing when all are done, or one has no place.
  std::optional<ClimbStep> next();

 private:
  struct Planned {
    Recount recount;
    int32_t first_slot = 0, last_slot = 0;  // where; the second is beyond
  };
  void take_region(int32_t first_gpu, int32_t gpus);
  ClimbStep turn_over(const Planned& planned);
  ClimbStep make_room(const Planned& planned);
  template <typename Visit>
  void for_each_spare(const Planned& planned, Visit visit) const;
  bool may_come(int32_t expert, int32_t gpu) const;

  const LayerState& state_;
  TurnoverSearch& turnovers_;
  ReplicaCounts counts_;
  std::vector<Planned> plan_;
  size_t done_ = 0;

  // The GPUs at hand.
  std::vector<float> speeds_;         // fastest first
  std::vector<int32_t> experts_;      // with a replica there
  std::vector<int32_t> replicas_;     // [experts_] there
  std::vector<float> loads_;          // [experts_] of those, in mean GPU loads
  std::vector<int32_t> replicas_at_;  // [experts of the layer]
};

}  // namespace eplbd
