// The placements that were given out or heard of: what must outlive the process, so that no name
// is ever given to two maps.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "core/model/placement.h"
#include "core/model/placement_update.h"

namespace eplbd {

// A plain value; `published` always has a map.
struct PlacementLog {
  Placement initial;          // as workers started
  PlacementUpdate published;  // the newest; (0, 0): the initial one
  PlacementId highest;        // term and version that were ever given out or heard
  bool new_term = true;       // the next placement needs one
  bool waits = false;         // published was adopted, and only who reported it knows of it yet
  std::deque<PlacementUpdate> history;  // earlier ones without their moves, newest first
  bool operator==(const PlacementLog&) const = default;

  // The name of the next placement: its version is above every one that was heard, and so is its
  // term where a new one is due (the date, in Unix seconds).
  PlacementId next_id(double unix_seconds) const;
  // In the history, or published; null: not kept.
  const PlacementUpdate* find(uint64_t version) const;
  // The map that was published, or reported at the start, under this name; null: not known.
  const Placement* map_of(PlacementId id) const;

  void publish(const PlacementUpdate& update);
  // The name is taken: no other placement gets it, nor one below.
  void give_up(PlacementId id);
  // Somebody runs a placement that is not ours: the next one starts a term above it.
  void heard(PlacementId id);
  // What the group runs, by nobody's decision of ours, becomes the published one, and one above it
  // waits. Requires: `id` is the initial one, or above the published one.
  void adopt(PlacementId id, const Placement& placement, double unix_seconds,
             std::vector<int32_t> gpus_down);
  // The group is of another shape, this one, and runs `placement` under a name of before. What went
  // out until now is of no more use; the names stay taken.
  void carry_over(const Topology& topology, PlacementId id, const Placement& placement,
                  double unix_seconds, std::vector<int32_t> gpus_down);
};

}  // namespace eplbd
