// SPDX-License-Identifier: Apache-2.0
#include "core/migration.h"

#include <algorithm>
#include <tuple>

namespace eplbd {
namespace {

// Calls visit(layer, slot) for each slot whose new expert its GPU did not hold; once for an expert
// that a GPU newly holds twice: it is fetched once.
template <typename Visit>
void for_each_move(const Topology& topology, const Placement& base, const Placement& next,
                   Visit visit) {
  const int32_t width = topology.slots_per_gpu();
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const auto before = base.layer(layer);
    const auto after = next.layer(layer);
    for (int32_t slot = 0; slot < topology.slots; ++slot) {
      const int32_t expert = after[slot];
      if (expert == kNoExpert || expert == before[slot]) continue;
      const int32_t first = slot / width * width;
      const auto held = before.subspan(first, width);
      const auto fetched = after.subspan(first, slot - first);
      if (std::find(held.begin(), held.end(), expert) != held.end()) continue;
      if (std::find(fetched.begin(), fetched.end(), expert) != fetched.end()) continue;
      visit(layer, slot);
    }
  }
}

// Slots that hold each expert of one layer.
std::vector<std::vector<int32_t>> holders(const Topology& topology, std::span<const int32_t> row,
                                          std::span<const int32_t> gpus_lost) {
  std::vector<std::vector<int32_t>> slots(topology.logical_experts);
  for (int32_t slot = 0; slot < topology.slots; ++slot) {
    const bool lost =
        std::find(gpus_lost.begin(), gpus_lost.end(), topology.gpu_of(slot)) != gpus_lost.end();
    if (row[slot] != kNoExpert && !lost) slots[row[slot]].push_back(slot);
  }
  return slots;
}

}  // namespace

std::vector<Move> moves_between(const Topology& topology, const Placement& base,
                                const Placement& next, std::span<const int32_t> gpus_lost) {
  std::vector<Move> moves;
  int32_t holders_of = -1;  // the layer that `slots` is of
  std::vector<std::vector<int32_t>> slots;
  std::vector<int32_t> served(static_cast<size_t>(topology.layers) * topology.slots);
  for_each_move(topology, base, next, [&](int32_t layer, int32_t slot) {
    if (holders_of != layer) {
      slots = holders(topology, base.layer(layer), gpus_lost);
      holders_of = layer;
    }
    const int32_t expert = next.layer(layer)[slot];
    const int32_t node = topology.node_of(topology.gpu_of(slot));
    int32_t* const served_here = served.data() + static_cast<size_t>(layer) * topology.slots;
    const auto source =
        std::min_element(slots[expert].begin(), slots[expert].end(), [&](int32_t a, int32_t b) {
          const auto cost = [&](int32_t s) {
            return std::tuple(topology.node_of(topology.gpu_of(s)) != node, served_here[s], s);
          };
          return cost(a) < cost(b);
        });
    Move move{layer, slot, expert, -1};
    if (source != slots[expert].end()) {
      move.source_slot = *source;
      ++served_here[*source];
    }
    moves.push_back(move);
  });
  return moves;
}

MoveCount count_moves(const Topology& topology, const Placement& base, const Placement& next) {
  MoveCount count;
  std::vector<int64_t> incoming(topology.gpus);
  for_each_move(topology, base, next, [&](int32_t, int32_t slot) {
    ++count.total;
    ++incoming[topology.gpu_of(slot)];
  });
  count.worst_gpu = *std::max_element(incoming.begin(), incoming.end());
  return count;
}

std::vector<int32_t> changed_layers(const Placement& base, const Placement& next) {
  std::vector<int32_t> changed;
  for (int32_t layer = 0; layer < base.layers(); ++layer) {
    const auto before = base.layer(layer);
    const auto after = next.layer(layer);
    if (!std::equal(before.begin(), before.end(), after.begin())) changed.push_back(layer);
  }
  return changed;
}

}  // namespace eplbd
