// What was decided, and what came of it: see daemon/status_parts.h.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "daemon/status_parts.h"

namespace eplbd {
namespace {

constexpr size_t kMovesShown = 512;  // of an update

Json moved_json(const Topology& topology, const PlacementUpdate& update) {
  Json list = Json::array();
  for (size_t i = 0; i < std::min(update.moves.size(), kMovesShown); ++i) {
    const Move& move = update.moves[i];
    const int32_t from = move.source_slot < 0 ? -1 : topology.gpu_of(move.source_slot);
    list.push_back({topology.layer_id(move.layer), move.expert, from, topology.gpu_of(move.slot)});
  }
  return list;
}

// The newest search for a better placement, whatever came of it.
Json candidate_json(const std::optional<Decision>& searched) {
  if (!searched || searched->imbalance_after <= 0) return nullptr;
  return {{"ts", searched->now.unix_seconds},
          {"verdict", to_string(searched->verdict)},
          {"imbalance", rounded(searched->imbalance)},
          {"imbalance_after", rounded(searched->imbalance_after)},
          {"gain", rounded(searched->gain)},
          {"moves", searched->moves}};
}

}  // namespace

Json decisions_json(const Journal& journal) {
  Json list = Json::array();
  for (const JournalDecision& entry : journal.decisions()) {
    const Decision& decision = entry.latest;
    list.push_back({{"verdict", to_string(decision.verdict)},
                    {"detail", decision.detail},
                    {"since", entry.since},
                    {"ts", entry.ts},
                    {"times", entry.times},
                    {"imbalance", number_or_null(decision.imbalance)},
                    {"imbalance_after", number_or_null(decision.imbalance_after)},
                    {"moves", decision.moves}});
  }
  return list;
}

Json update_json(const PlacementUpdate& update) {
  return {{"term", update.id.term},
          {"version", update.id.version},
          {"ts", number_or_null(update.unix_seconds)},
          {"reason", to_string(update.reason)},
          {"imbalance_before", number_or_null(update.imbalance_before)},
          {"imbalance_after", number_or_null(update.imbalance_after)},
          {"changed_layers", update.changed_layers.size()}};
}

Json updates_json(const Topology& topology, const std::deque<PlacementUpdate>& updates,
                  double since) {
  Json list = Json::array();
  for (const PlacementUpdate& update : updates) {
    if (update.unix_seconds <= since) break;
    list.push_back(update_json(update));
    list.back()["moves"] = update.moves.size();
    list.back()["moved"] = moved_json(topology, update);
  }
  return list;
}

Json would_update_json(const Deployment& deployment) {
  const auto& updates = deployment.journal().would_updates();
  if (deployment.rebalancer().mode() != Mode::shadow || updates.empty()) return nullptr;
  Json json = update_json(updates.front());
  json.erase("term");  // they are given to no placement yet
  json.erase("version");
  json["moves"] = updates.front().moves.size();
  return json;
}

Json next_json(const Deployment& deployment, const Snapshot& snap) {
  const auto or_null = [](std::optional<int64_t> left) {
    return left ? Json(*left) : Json(nullptr);
  };
  return {{"possible_at", number_or_null(snap.next_update_unix_seconds)},
          {"updates_left", or_null(snap.updates_left)},
          {"moves_left", or_null(snap.moves_left)},
          {"candidate", candidate_json(deployment.journal().searched())}};
}

Json history_json(const Journal& journal, double since) {
  Json list = Json::array();
  for (const JournalSample& sample : journal.samples()) {
    if (sample.ts <= since) continue;
    list.push_back({std::round(sample.ts * 1e3) / 1e3, rounded(sample.imbalance),
                    rounded(sample.imbalance_initial), rounded(sample.worst_layer),
                    rounded_or_null(sample.imbalance_measured), rounded(sample.imbalance_floor),
                    rounded_or_null(sample.imbalance_would_be)});
  }
  return list;
}

Json events_json(const Journal& journal, double since) {
  Json list = Json::array();
  for (const JournalEvent& event : journal.events()) {
    if (event.ts <= since) continue;
    list.push_back({{"ts", event.ts}, {"kind", to_string(event.kind)}, {"text", event.text}});
  }
  return list;
}

}  // namespace eplbd
