// Which logical expert lies in which slot, for every layer; and when such a map is valid.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/model/topology.h"

namespace eplbd {

// What orders placements. A worker takes what is above what it holds; (0, 0) is the initial one.
struct PlacementId {
  uint64_t term = 0;
  uint64_t version = 0;
  auto operator<=>(const PlacementId&) const = default;
};

std::string to_text(PlacementId id);  // TERM.VERSION, as people and ETags name it

// A slot of a GPU that is down holds nothing.
inline constexpr int32_t kNoExpert = -1;

// physical_to_logical_map [layers, slots], flat. A value: immutable once built, cheap to compare.
class Placement {
 public:
  Placement() = default;
  // Requires: slot_to_expert.size() == layers * slots of the topology.
  Placement(const Topology& topology, std::vector<int32_t> slot_to_expert);

  // Slot s holds expert s % logical_experts, as vLLM starts.
  static Placement initial(const Topology& topology);

  int32_t layers() const { return layers_; }
  int32_t slots() const { return slots_; }
  std::span<const int32_t> layer(int32_t layer) const {
    return {map_.data() + static_cast<size_t>(layer) * slots_, static_cast<size_t>(slots_)};
  }
  const std::vector<int32_t>& map() const { return map_; }  // [layers, slots]

  bool operator==(const Placement&) const = default;

 private:
  int32_t layers_ = 0;
  int32_t slots_ = 0;
  std::vector<int32_t> map_;
};

// Slots that hold each expert: [logical_experts] of one layer.
void count_replicas(std::span<const int32_t> slot_to_expert, std::span<int32_t> replicas);

// logical_to_physical [layers, logical_experts, width], -1 padded, replicas in slot order, and
// logical_replica_count [layers, logical_experts]. `width` is the largest replica count.
struct ReplicaTable {
  int32_t width = 0;
  std::vector<int32_t> logical_to_physical;
  std::vector<int32_t> logical_replica_count;
};
ReplicaTable replica_table(const Topology& topology, const Placement& placement);

// What the hierarchical policy asks of expert groups: of a placement from scratch, of an update.
enum class GroupRule { none, one_node, no_wider_than_base };

struct PlacementRules {
  GroupRule groups = GroupRule::none;
  const Placement* base = nullptr;          // what it updates: an expert that stays keeps its slot
  std::span<const int32_t> gpus_down = {};  // hold nothing
  bool allow_duplicates = false;            // an expert twice on a GPU (the originals do that)
};

// The first rule of contract section 2 that `placement` breaks, as a sentence with its layer, slot
// and expert; nothing when it is valid.
std::optional<std::string> find_violation(const Topology& topology, const Placement& placement,
                                          const PlacementRules& rules = {});

// `candidate` with its slots permuted inside each GPU so that an expert which stays on a GPU keeps
// its slot of `base`. What lies on which GPU does not change.
Placement keep_slots(const Topology& topology, const Placement& base, const Placement& candidate);

}  // namespace eplbd
