// SPDX-License-Identifier: Apache-2.0
#include "core/model/placement.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace eplbd {
namespace {

// People know layers by the model's own numbers.
std::string name_of(const Topology& topology, int32_t layer) {
  return "layer " + std::to_string(topology.layer_id(layer));
}

std::string place(const Topology& topology, int32_t layer, int32_t slot) {
  return name_of(topology, layer) + ", slot " + std::to_string(slot);
}

using Row = std::span<const int32_t>;
using Violation = std::optional<std::string>;

// Checks one layer of a placement against the rules.
class LayerCheck {
 public:
  LayerCheck(const Topology& topology, const PlacementRules& rules, int32_t layer, Row row)
      : topology_(topology), rules_(rules), layer_(layer), row_(row) {}

  Violation run() const {
    if (auto violation = check_range()) return violation;
    if (auto violation = check_every_expert()) return violation;
    if (!rules_.allow_duplicates) {
      if (auto violation = check_duplicates()) return violation;
    }
    if (rules_.base) {
      if (auto violation = check_kept_slots()) return violation;
    }
    if (rules_.groups != GroupRule::none) return check_groups();
    return std::nullopt;
  }

 private:
  bool down(int32_t gpu) const {
    return std::find(rules_.gpus_down.begin(), rules_.gpus_down.end(), gpu) !=
           rules_.gpus_down.end();
  }

  Row gpu_row(Row row, int32_t gpu) const {
    return row.subspan(static_cast<size_t>(gpu) * topology_.slots_per_gpu(),
                       topology_.slots_per_gpu());
  }

  Violation check_range() const {
    for (int32_t slot = 0; slot < topology_.slots; ++slot) {
      const int32_t expert = row_[slot];
      if (down(topology_.gpu_of(slot))) {
        if (expert != kNoExpert) {
          return place(topology_, layer_, slot) + " holds expert " + std::to_string(expert) +
                 ", but its GPU is down";
        }
      } else if (expert < 0 || expert >= topology_.logical_experts) {
        return place(topology_, layer_, slot) + " holds " + std::to_string(expert) +
               ", which is no expert of " + std::to_string(topology_.logical_experts);
      }
    }
    return std::nullopt;
  }

  Violation check_every_expert() const {
    std::vector<int32_t> replicas(topology_.logical_experts);
    count_replicas(row_, replicas);
    const auto missing = std::find(replicas.begin(), replicas.end(), 0);
    if (missing == replicas.end()) return std::nullopt;
    return name_of(topology_, layer_) + ": expert " + std::to_string(missing - replicas.begin()) +
           " has no slot";
  }

  // Experts that may lie on one GPU: with fewer than its slots, some must lie there twice.
  int32_t experts_that_may_lie_on_a_gpu() const {
    if (rules_.groups != GroupRule::one_node) return topology_.logical_experts;
    return topology_.logical_experts / topology_.nodes;
  }

  Violation check_duplicates() const {
    if (topology_.slots_per_gpu() > experts_that_may_lie_on_a_gpu()) return std::nullopt;
    std::vector<int32_t> seen_on(topology_.logical_experts, -1);
    for (int32_t slot = 0; slot < topology_.slots; ++slot) {
      const int32_t expert = row_[slot];
      if (expert == kNoExpert) continue;
      const int32_t gpu = topology_.gpu_of(slot);
      if (seen_on[expert] == gpu) {
        return place(topology_, layer_, slot) + ": GPU " + std::to_string(gpu) + " holds expert " +
               std::to_string(expert) + " twice";
      }
      seen_on[expert] = gpu;
    }
    return std::nullopt;
  }

  // Of an expert's slots on a GPU, as many as stay must be ones that it had.
  Violation check_kept_slots() const {
    const Row base = rules_.base->layer(layer_);
    for (int32_t slot = 0; slot < topology_.slots; ++slot) {
      const int32_t expert = row_[slot];
      if (expert == kNoExpert || expert == base[slot]) continue;
      const Row before = gpu_row(base, topology_.gpu_of(slot));
      const Row now = gpu_row(row_, topology_.gpu_of(slot));
      for (size_t i = 0; i < before.size(); ++i) {
        if (before[i] == expert && now[i] != expert) {
          return place(topology_, layer_, slot) + ": expert " + std::to_string(expert) +
                 " stays on its GPU but not in its slot";
        }
      }
    }
    return std::nullopt;
  }

  std::vector<std::vector<bool>> nodes_of_groups(Row row) const {
    std::vector<std::vector<bool>> nodes(topology_.groups, std::vector<bool>(topology_.nodes));
    for (int32_t slot = 0; slot < topology_.slots; ++slot) {
      if (row[slot] == kNoExpert) continue;
      nodes[row[slot] / topology_.experts_per_group()][topology_.node_of(topology_.gpu_of(slot))] =
          true;
    }
    return nodes;
  }

  Violation check_groups() const {
    const auto now = nodes_of_groups(row_);
    const bool update = rules_.groups == GroupRule::no_wider_than_base && rules_.base;
    const auto before =
        update ? nodes_of_groups(rules_.base->layer(layer_)) : std::vector<std::vector<bool>>();
    for (int32_t group = 0; group < topology_.groups; ++group) {
      const auto spread = std::count(now[group].begin(), now[group].end(), true);
      const auto allowed =
          update ? std::count(before[group].begin(), before[group].end(), true) : 1;
      if (spread > allowed) {
        return name_of(topology_, layer_) + ": group " + std::to_string(group) + " lies on " +
               std::to_string(spread) + " nodes, not " + std::to_string(allowed);
      }
    }
    return std::nullopt;
  }

  const Topology& topology_;
  const PlacementRules& rules_;
  const int32_t layer_;
  const Row row_;
};

}  // namespace

std::string to_text(PlacementId id) {
  return std::to_string(id.term) + "." + std::to_string(id.version);
}

Placement::Placement(const Topology& topology, std::vector<int32_t> slot_to_expert)
    : layers_(topology.layers), slots_(topology.slots), map_(std::move(slot_to_expert)) {
  assert(map_.size() == static_cast<size_t>(layers_) * slots_);
}

Placement Placement::initial(const Topology& topology) {
  std::vector<int32_t> map(static_cast<size_t>(topology.layers) * topology.slots);
  for (size_t i = 0; i < map.size(); ++i) {
    map[i] = static_cast<int32_t>(i % topology.slots % topology.logical_experts);
  }
  return {topology, std::move(map)};
}

void count_replicas(std::span<const int32_t> slot_to_expert, std::span<int32_t> replicas) {
  std::fill(replicas.begin(), replicas.end(), 0);
  for (const int32_t expert : slot_to_expert) {
    if (expert != kNoExpert) ++replicas[expert];
  }
}

ReplicaTable replica_table(const Topology& topology, const Placement& placement) {
  const auto experts = static_cast<size_t>(topology.logical_experts);
  ReplicaTable table;
  table.logical_replica_count.resize(topology.layers * experts);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const std::span row(table.logical_replica_count.data() + layer * experts, experts);
    count_replicas(placement.layer(layer), row);
    table.width = std::max(table.width, *std::max_element(row.begin(), row.end()));
  }
  table.logical_to_physical.assign(topology.layers * experts * table.width, -1);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    std::vector<int32_t> placed(experts);
    const auto row = placement.layer(layer);
    for (int32_t slot = 0; slot < topology.slots; ++slot) {
      if (row[slot] == kNoExpert) continue;
      const size_t expert = row[slot];
      table.logical_to_physical[(layer * experts + expert) * table.width + placed[expert]++] = slot;
    }
  }
  return table;
}

std::optional<std::string> find_violation(const Topology& topology, const Placement& placement,
                                          const PlacementRules& rules) {
  if (placement.layers() != topology.layers || placement.slots() != topology.slots) {
    return "the map is " + std::to_string(placement.layers()) + " x " +
           std::to_string(placement.slots()) + ", not " + std::to_string(topology.layers) + " x " +
           std::to_string(topology.slots);
  }
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    if (auto violation = LayerCheck(topology, rules, layer, placement.layer(layer)).run()) {
      return violation;
    }
  }
  return std::nullopt;
}

namespace {

// Rearranges one GPU's slots of one layer: those that stay to where they were, newcomers to the
// holes in the order in which the candidate has them.
void align_gpu(std::span<const int32_t> base, std::span<int32_t> next) {
  std::vector<int32_t> newcomers;
  std::vector<int32_t> aligned(next.size(), kNoExpert);
  std::vector<bool> taken(next.size());
  for (const int32_t expert : next) {
    size_t slot = 0;
    while (slot < base.size() && (base[slot] != expert || taken[slot])) ++slot;
    if (slot < base.size()) {
      aligned[slot] = expert;
      taken[slot] = true;
    } else {
      newcomers.push_back(expert);
    }
  }
  size_t hole = 0;
  for (const int32_t expert : newcomers) {
    while (taken[hole]) ++hole;
    aligned[hole] = expert;
    taken[hole] = true;
  }
  std::copy(aligned.begin(), aligned.end(), next.begin());
}

}  // namespace

Placement keep_slots(const Topology& topology, const Placement& base, const Placement& candidate) {
  std::vector<int32_t> map = candidate.map();
  const auto width = static_cast<size_t>(topology.slots_per_gpu());
  for (size_t first = 0; first < map.size(); first += width) {
    const std::span before(base.map().data() + first, width);
    const std::span after(map.data() + first, width);
    if (!std::equal(before.begin(), before.end(), after.begin())) align_gpu(before, after);
  }
  return {topology, std::move(map)};
}

}  // namespace eplbd
