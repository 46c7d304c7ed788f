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

  // Lists the changes that gain `least` each. Returns by how much they lower the fullest GPU, as
  // far as counts decide it, in mean GPU loads. Where groups are kept on nodes, replicas change
  // within a node.
  float plan(float least, float worth);

  // Where the next one of the plan is cheapest; nothing when all are done, or one has no place.
  std::optional<ClimbStep> next();

 private:
  struct Region {
    int32_t first_gpu = 0;
    std::vector<int32_t> experts;  // with a replica there
    float before = 0, after = 0;
  };
  void take_region(int32_t node, int32_t nodes);
  ClimbStep turn_over(const Recount& recount);
  ClimbStep make_room(const Recount& recount);
  bool may(int32_t expert, int32_t gpu) const;

  const LayerState& state_;
  TurnoverSearch& turnovers_;
  ReplicaCounts counts_;
  std::vector<int32_t> experts_;  // of the region
  std::vector<float> loads_, speeds_;
  std::vector<int32_t> replicas_;
  struct Planned {
    Recount recount;
    int32_t first_slot = 0, last_slot = 0;  // of the region
  };
  std::vector<Planned> plan_;
  size_t done_ = 0;
};

}  // namespace eplbd
