// SPDX-License-Identifier: Apache-2.0
#include "core/model/placement_log.h"

#include <algorithm>
#include <utility>

namespace eplbd {
namespace {

constexpr size_t kHistory = 8;
constexpr double kLatestTerm = 9007199254740992.0;  // 2^53, far after any clock

void remember(PlacementUpdate update, std::deque<PlacementUpdate>& history) {
  update.moves.clear();  // they are of use while it is new
  history.push_front(std::move(update));
  if (history.size() > kHistory) history.pop_back();
}

// What a group runs by nobody's decision of ours.
PlacementUpdate found(PlacementId id, const Placement& placement, double unix_seconds,
                      std::vector<int32_t> gpus_down) {
  PlacementUpdate update;
  update.id = update.base = id;
  update.unix_seconds = unix_seconds;
  update.reason = id == PlacementId{} ? UpdateReason::initial : UpdateReason::recovered;
  update.placement = placement;
  update.gpus_down = std::move(gpus_down);
  return update;
}

}  // namespace

PlacementId PlacementLog::next_id(double unix_seconds) const {
  PlacementId id{std::max(highest.term, published.id.term),
                 std::max(highest.version, published.id.version) + 1};
  if (new_term) {
    const double seconds = std::clamp(unix_seconds, 1.0, kLatestTerm);
    id.term = std::max(static_cast<uint64_t>(seconds), highest.term + 1);
  }
  return id;
}

const PlacementUpdate* PlacementLog::find(uint64_t version) const {
  if (published.id.version == version) return &published;
  const auto found = std::find_if(history.begin(), history.end(),
                                  [&](const auto& update) { return update.id.version == version; });
  return found == history.end() ? nullptr : &*found;
}

const Placement* PlacementLog::map_of(PlacementId id) const {
  if (id == published.id) return &published.placement;
  if (id == PlacementId{}) return &initial;
  const PlacementUpdate* const known = find(id.version);
  return known != nullptr && known->id == id ? &known->placement : nullptr;
}

void PlacementLog::publish(const PlacementUpdate& update) {
  remember(std::exchange(published, update), history);
  give_up(update.id);
  new_term = waits = false;
}

void PlacementLog::give_up(PlacementId id) {
  highest = {std::max(highest.term, id.term), std::max(highest.version, id.version)};
}

void PlacementLog::heard(PlacementId id) {
  new_term = true;
  give_up(id);
}

void PlacementLog::adopt(PlacementId id, const Placement& placement, double unix_seconds,
                         std::vector<int32_t> gpus_down) {
  if (id == PlacementId{}) initial = placement;
  if (id > published.id) {
    if (published.id != PlacementId{} && !waits) remember(std::move(published), history);
    waits = true;
    heard(id);
  }
  published = found(id, placement, unix_seconds, std::move(gpus_down));
}

void PlacementLog::carry_over(const Topology& topology, PlacementId id, const Placement& placement,
                              double unix_seconds, std::vector<int32_t> gpus_down) {
  give_up(published.id);
  if (id > highest) heard(id);
  history.clear();
  initial = id == PlacementId{} ? placement : Placement::initial(topology);
  published = found(id, placement, unix_seconds, std::move(gpus_down));
}

}  // namespace eplbd
