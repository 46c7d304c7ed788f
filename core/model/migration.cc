// SPDX-License-Identifier: Apache-2.0
#include "core/model/migration.h"

#include <algorithm>
#include <tuple>
#include <utility>

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

// The slots that hold each expert of one layer, as chains: -1 ends them.
struct Sources {
  int32_t layer = -1;
  std::vector<int32_t> first;  // [experts]
  std::vector<int32_t> next;   // [slots]
};

void find_sources(const Topology& topology, const Placement& base, int32_t layer,
                  std::span<const int32_t> gpus_lost, Sources& sources) {
  sources.layer = layer;
  sources.first.assign(topology.logical_experts, -1);
  sources.next.assign(topology.slots, -1);
  const int32_t width = topology.slots_per_gpu();
  for (int32_t slot = 0; slot < topology.slots; ++slot) {
    const int32_t expert = base.layer(layer)[slot];
    if (expert == kNoExpert) continue;
    if (std::find(gpus_lost.begin(), gpus_lost.end(), slot / width) != gpus_lost.end()) continue;
    sources.next[slot] = std::exchange(sources.first[expert], slot);
  }
}

}  // namespace

std::vector<Move> moves_between(const Topology& topology, const Placement& base,
                                const Placement& next, std::span<const int32_t> gpus_lost) {
  std::vector<Move> moves;
  Sources sources;
  std::vector<int32_t> served(static_cast<size_t>(topology.layers) * topology.slots);
  for_each_move(topology, base, next, [&](int32_t layer, int32_t slot) {
    if (sources.layer != layer) find_sources(topology, base, layer, gpus_lost, sources);
    const int32_t expert = next.layer(layer)[slot];
    const int32_t node = topology.node_of(topology.gpu_of(slot));
    int32_t* const served_here = served.data() + static_cast<size_t>(layer) * topology.slots;
    const auto cost = [&](int32_t s) {
      return std::tuple(topology.node_of(topology.gpu_of(s)) != node, served_here[s], s);
    };
    Move move{layer, slot, expert, sources.first[expert]};
    for (int32_t s = move.source_slot; s >= 0; s = sources.next[s]) {
      if (cost(s) < cost(move.source_slot)) move.source_slot = s;
    }
    if (move.source_slot >= 0) ++served_here[move.source_slot];
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
