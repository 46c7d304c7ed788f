// The parts of /api/v1/status, and what they have in common.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/model/time.h"
#include "daemon/deployment.h"
#include "daemon/status_json.h"

namespace eplbd {

using Json = nlohmann::ordered_json;

// For people and plots: four digits after the point are plenty, and a third of the bytes.
inline double rounded(double value) { return std::round(value * 1e4) / 1e4; }
inline Json number_or_null(double value) { return value > 0 ? Json(value) : Json(nullptr); }
inline Json rounded_or_null(double value) { return number_or_null(rounded(value)); }
inline Json text_or_null(const std::string& text) {
  return text.empty() ? Json(nullptr) : Json(text);
}

// status_workers.cc: who sends, and what was dropped.
Json workers_json(const Rebalancer& rebalancer, Now now);
Json group_json(const Deployment& deployment, Now now);
Json rejected_json(const Rejections& rejections);
// Where nobody counts: since when, and who was heard last.
std::string waiting_for(const Deployment& deployment, const Endpoints& endpoints, Now now);

// status_decisions.cc: what was decided, and what came of it.
Json decisions_json(const Journal& journal);
Json update_json(const PlacementUpdate& update);  // without its map and moves
// Newest first, of what is newer than `since`, in Unix seconds.
Json updates_json(const Topology& topology, const std::deque<PlacementUpdate>& updates,
                  double since);
Json would_update_json(const Deployment& deployment);  // null unless mode is shadow
Json next_json(const Deployment& deployment, const Snapshot& snap);
// Oldest first, of what is newer than `since`.
Json history_json(const Journal& journal, double since);
Json events_json(const Journal& journal, double since);

// status_facts.cc
// Layer and expert of what the group, while it applies, has to load from disk: no GPU holds it.
std::vector<std::pair<int32_t, int32_t>> from_disk(const GroupState& group);
Json facts_json(const Deployment& deployment, const Snapshot& snap, Now now);

}  // namespace eplbd
