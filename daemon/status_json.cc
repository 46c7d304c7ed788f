// SPDX-License-Identifier: Apache-2.0
#include "daemon/status_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/model/imbalance.h"
#include "daemon/version.h"

namespace eplbd {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMovesShown = 512;  // of an update

// For people and plots: four digits after the point are plenty, and a third of the bytes.
double rounded(double value) { return std::round(value * 1e4) / 1e4; }

// With problems it is degraded; without, and with no worker heard for workers.timeout, waiting.
enum class Health { healthy, waiting, degraded };
constexpr auto names(Health) {
  return std::to_array<std::string_view>({"healthy", "waiting", "degraded"});
}
Health health_of(const Snapshot& snap) {
  if (!snap.problems.empty()) return Health::degraded;
  return snap.workers > 0 ? Health::healthy : Health::waiting;
}

Json number_or_null(double value) { return value > 0 ? Json(value) : Json(nullptr); }
Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json rounded_list(std::span<const double> values) {
  Json list = Json::array();
  for (const double value : values) list.push_back(rounded(value));
  return list;
}

Json layer_ids(const Topology& topology) {
  Json list = Json::array();
  for (int32_t layer = 0; layer < topology.layers; ++layer)
    list.push_back(topology.layer_id(layer));
  return list;
}

Json topology_json(const Topology& topology) {
  return {{"layers", topology.layers},       {"logical_experts", topology.logical_experts},
          {"slots", topology.slots},         {"gpus", topology.gpus},
          {"nodes", topology.nodes},         {"groups", topology.groups},
          {"layer_ids", layer_ids(topology)}};
}

Json placement_summary(const GroupState& group) {
  const PlacementUpdate& published = group.published();
  return {{"term", published.id.term},
          {"version", published.id.version},
          {"ts", number_or_null(published.unix_seconds)},
          {"reason", to_string(published.reason)},
          {"applied", !group.pending()},
          {"running", {{"term", group.running().term}, {"version", group.running().version}}}};
}

Json layer_gpu_ratio(const Topology& topology, std::span<const double> loads, size_t gpus_down) {
  Json rows = Json::array();
  const auto gpus = static_cast<size_t>(topology.gpus);
  for (size_t first = 0; first < loads.size(); first += gpus) {
    const auto row = loads.subspan(first, gpus);
    double sum = 0;
    for (const double load : row) sum += load;
    Json ratios = Json::array();
    const double mean = sum / static_cast<double>(gpus - gpus_down);
    for (const double load : row) ratios.push_back(sum > 0 ? rounded(load / mean) : 0.0);
    rows.push_back(std::move(ratios));
  }
  return rows;
}

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

Json moved_json(const Topology& topology, const PlacementUpdate& update) {
  Json list = Json::array();
  for (size_t i = 0; i < std::min(update.moves.size(), kMovesShown); ++i) {
    const Move& move = update.moves[i];
    const int32_t from = move.source_slot < 0 ? -1 : topology.gpu_of(move.source_slot);
    list.push_back({topology.layer_id(move.layer), move.expert, from, topology.gpu_of(move.slot)});
  }
  return list;
}

// Without its map and moves.
Json update_json(const PlacementUpdate& update) {
  return {{"term", update.id.term},
          {"version", update.id.version},
          {"ts", number_or_null(update.unix_seconds)},
          {"reason", to_string(update.reason)},
          {"imbalance_before", number_or_null(update.imbalance_before)},
          {"imbalance_after", number_or_null(update.imbalance_after)},
          {"changed_layers", update.changed_layers.size()}};
}

Json updates_json(const Topology& topology, const Journal& journal) {
  Json list = Json::array();
  for (const PlacementUpdate& update : journal.updates()) {
    list.push_back(update_json(update));
    list.back()["moves"] = update.moves.size();
    list.back()["moved"] = moved_json(topology, update);
  }
  return list;
}

Json workers_json(const Rebalancer& rebalancer, Now now) {
  const SourceTable& table = rebalancer.sources();
  const PlacementId newest = rebalancer.group().published().id;
  std::vector<const SourceTable::Map::value_type*> sources;
  for (const auto& entry : table.sources()) {
    if (entry.second.counts.heard()) sources.push_back(&entry);
  }
  std::sort(sources.begin(), sources.end(),
            [](const auto* a, const auto* b) { return a->first < b->first; });
  Json list = Json::array();
  for (const auto* entry : sources) {
    const Source& source = entry->second;
    const bool live = table.live(source, now.steady);
    list.push_back({{"source", entry->first},
                    {"live", live},
                    {"behind", live && source.running != newest},
                    {"term", source.running.term},
                    {"version", source.running.version},
                    {"heard_seconds_ago", rounded(to_seconds(now.steady - source.counts.at()))},
                    {"messages", source.messages},
                    {"lost", source.lost}});
  }
  return list;
}

Json group_json(const Deployment& deployment, Now now) {
  const auto& report = deployment.group_report();
  if (!report) return nullptr;
  return {{"source", report->source},
          {"status", to_string(report->status)},
          {"layers_done", report->layers_done < 0 ? Json(nullptr) : Json(report->layers_done)},
          {"error", text_or_null(report->error)},
          {"heard_seconds_ago", rounded(to_seconds(now.steady - report->at))},
          {"term", report->running.term},
          {"version", report->running.version}};
}

// Where nobody counts: since when, and who was heard last.
std::string waiting_for(const Deployment& deployment, const Endpoints& endpoints, Now now) {
  const auto& report = deployment.group_report();
  const auto& sources = deployment.rebalancer().sources().sources();
  const SourceTable::Map::value_type* last = nullptr;
  for (const auto& entry : sources) {
    if (!entry.second.counts.heard()) continue;
    if (last == nullptr || entry.second.counts.at() > last->second.counts.at()) last = &entry;
  }
  const auto ago = [&](TimePoint then) {
    return fmt::format("{:.0f} s ago", to_seconds(now.steady - then));
  };
  std::string text = fmt::format("no worker sent counts since the start: they connect to {}",
                                 fmt::join(endpoints.counts, " "));
  if (last != nullptr) {
    text = fmt::format("nobody sends counts: the last came from {} {}", last->first,
                       ago(last->second.counts.at()));
  }
  if (report) {
    text +=
        fmt::format("; {} said {} {}", report->source, to_string(report->status), ago(report->at));
  }
  return text;
}

Json rejected_json(const Rejections& rejections) {
  Json list = Json::array();
  for (const RejectedSender& sender : rejections.senders()) {
    list.push_back({{"source", text_or_null(sender.source)},
                    {"peer", text_or_null(sender.peer)},
                    {"reason", to_string(sender.reason)},
                    {"detail", sender.text},
                    {"times", sender.times},
                    {"ts", sender.last.unix_seconds}});
  }
  return list;
}

// What shadow would have done last; null in other modes and before.
Json would_update_json(const Deployment& deployment) {
  if (deployment.rebalancer().mode() != Mode::shadow) return nullptr;
  for (const JournalDecision& entry : deployment.journal().decisions()) {
    const Decision& decision = entry.latest;
    if (decision.verdict != Verdict::would_update) continue;
    return {{"ts", entry.ts},
            {"imbalance_before", number_or_null(decision.imbalance)},
            {"imbalance_after", number_or_null(decision.imbalance_after)},
            {"moves", decision.moves}};
  }
  return nullptr;
}

Json history_json(const Journal& journal) {
  Json list = Json::array();
  for (const JournalSample& sample : journal.samples()) {
    list.push_back({std::round(sample.ts * 1e3) / 1e3, rounded(sample.imbalance),
                    rounded(sample.imbalance_initial)});
  }
  return list;
}

// Texts of workers may hold anything.
std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void add_balance(Json& json, const Deployment& deployment, const Snapshot& snap, Now now) {
  const Rebalancer& rebalancer = deployment.rebalancer();
  json["imbalance"] = number_or_null(snap.imbalance);
  json["balancedness"] = number_or_null(snap.imbalance > 0 ? 1 / snap.imbalance : 0);
  json["imbalance_initial"] = number_or_null(snap.imbalance_initial);
  json["imbalance_measured"] = number_or_null(snap.imbalance_measured);
  json["imbalance_floor"] = number_or_null(snap.imbalance_floor);
  json["imbalance_threshold"] = snap.imbalance_threshold;
  json["gain_realised"] = snap.gain_realised ? Json(*snap.gain_realised) : Json(nullptr);
  json["tokens"] = rebalancer.tokens(now);
  json["half_life_seconds"] = snap.window_half_life_seconds;
  json["layer_imbalance"] = rounded_list(snap.layer_imbalance);
  json["gpu_load_ratio"] = rounded_list(snap.gpu_load_ratio);
  const std::vector<double> loads =
      gpu_loads(rebalancer.topology(), rebalancer.group().in_force(), rebalancer.loads(now));
  json["layer_gpu_load_ratio"] = layer_gpu_ratio(rebalancer.topology(), loads,
                                                 rebalancer.group().published().gpus_down.size());
}

}  // namespace

std::string status_json(const Deployment& deployment, const Endpoints& endpoints, Now now) {
  const Rebalancer& rebalancer = deployment.rebalancer();
  const Snapshot snap = deployment.snapshot(now);
  std::vector<std::string> problems;
  for (const Problem& problem : snap.problems) problems.push_back(problem.text);
  const double paused_until = rebalancer.paused_until();
  Json json;
  json["deployment"] = deployment.name();
  json["program_version"] = kProgramVersion;
  json["ts"] = now.unix_seconds;
  json["started"] = deployment.started();
  json["mode"] = to_string(snap.mode);
  json["paused"] = snap.paused;
  json["paused_until"] = snap.paused ? number_or_null(paused_until) : Json(nullptr);
  json["leader"] = snap.leader;
  const Health health = health_of(snap);
  json["health"] = to_string(health);
  json["healthy"] = health == Health::healthy;
  json["problems"] = problems;
  json["waiting_for"] =
      health == Health::waiting ? Json(waiting_for(deployment, endpoints, now)) : Json(nullptr);
  json["endpoints"] = {{"counts", endpoints.counts},
                       {"placements", endpoints.placements},
                       {"http", endpoints.http},
                       {"control", endpoints.control}};
  json["topology"] = topology_json(rebalancer.topology());
  json["placement"] = placement_summary(rebalancer.group());
  json["gpus_down"] =
      rebalancer.group().may_empty_gpus() ? rebalancer.gpus_down() : rebalancer.state().gpus_down;
  add_balance(json, deployment, snap, now);
  json["history"] = history_json(deployment.journal());
  json["decisions"] = decisions_json(deployment.journal());
  json["would_update"] = would_update_json(deployment);
  json["updates"] = updates_json(rebalancer.topology(), deployment.journal());
  json["workers"] = workers_json(rebalancer, now);
  json["messages_rejected"] = deployment.metrics().messages_rejected();
  json["rejected"] = rejected_json(deployment.rejections());
  const auto decide_seconds = deployment.metrics().mean_decide_seconds();
  json["decide_seconds"] = decide_seconds ? Json(*decide_seconds) : Json(nullptr);
  json["group"] = group_json(deployment, now);
  return dump(json);
}

std::string versions_json(const Deployment& deployment) {
  const PlacementLog& log = deployment.rebalancer().state().placements;
  Json list = Json::array();
  const auto add = [&](const PlacementUpdate& update) {
    list.push_back(update_json(update));
    list.back()["gpus_down"] = update.gpus_down;
  };
  add(log.published);
  for (const PlacementUpdate& earlier : log.history) add(earlier);
  return dump({{"deployment", deployment.name()}, {"placements", list}});
}

std::string placement_json(const std::string& deployment, const Topology& topology,
                           const PlacementUpdate& update) {
  Json map = Json::array();
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const auto row = update.placement.layer(layer);
    map.push_back(std::vector<int32_t>(row.begin(), row.end()));
  }
  Json json;
  json["deployment"] = deployment;
  json["term"] = update.id.term;
  json["version"] = update.id.version;
  json["layers"] = topology.layers;
  json["logical_experts"] = topology.logical_experts;
  json["slots"] = topology.slots;
  json["gpus"] = topology.gpus;
  json["layer_ids"] = layer_ids(topology);
  json["physical_to_logical_map"] = std::move(map);
  json["gpus_down"] = update.gpus_down;
  json["reason"] = to_string(update.reason);
  json["ts"] = number_or_null(update.unix_seconds);
  return dump(json);
}

}  // namespace eplbd
