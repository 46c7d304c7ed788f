// SPDX-License-Identifier: Apache-2.0
#include "daemon/status_json.h"

#include "core/model/imbalance.h"
#include "daemon/status_parts.h"
#include "daemon/version.h"

namespace eplbd {
namespace {

constexpr double kHistoryShown = 600;  // seconds, where a request does not say since when

// With problems it is degraded; without, and with no worker heard for workers.timeout, waiting.
enum class Health { healthy, waiting, degraded };
constexpr auto names(Health) {
  return std::to_array<std::string_view>({"healthy", "waiting", "degraded"});
}
Health health_of(const Snapshot& snap) {
  if (!snap.problems.empty()) return Health::degraded;
  return snap.workers > 0 ? Health::healthy : Health::waiting;
}

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

Json topology_json(const Topology& topology, const Topology& configured) {
  return {{"layers", topology.layers},         {"logical_experts", topology.logical_experts},
          {"slots", topology.slots},           {"gpus", topology.gpus},
          {"nodes", topology.nodes},           {"groups", topology.groups},
          {"layer_ids", layer_ids(topology)},  {"slots_configured", configured.slots},
          {"gpus_configured", configured.gpus}};
}

Json placement_summary(const Topology& topology, const GroupState& group) {
  const PlacementUpdate& published = group.published();
  Json lost = Json::array();
  for (const auto& [layer, expert] : from_disk(group)) {
    lost.push_back({topology.layer_id(layer), expert});
  }
  return {{"term", published.id.term},
          {"version", published.id.version},
          {"ts", number_or_null(published.unix_seconds)},
          {"reason", to_string(published.reason)},
          {"applied", !group.pending()},
          {"from_disk", std::move(lost)},
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

// Texts of workers may hold anything.
std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json worst_layer_json(const Topology& topology, const std::vector<double>& layers) {
  const auto layer = worst_layer(layers);
  if (!layer) return nullptr;
  return {{"layer", topology.layer_id(*layer)}, {"imbalance", rounded(layers[*layer])}};
}

void add_balance(Json& json, const Deployment& deployment, const Snapshot& snap, Now now) {
  const Rebalancer& rebalancer = deployment.rebalancer();
  json["imbalance"] = number_or_null(snap.imbalance);
  json["balancedness"] = number_or_null(snap.imbalance > 0 ? 1 / snap.imbalance : 0);
  json["imbalance_initial"] = number_or_null(snap.imbalance_initial);
  json["imbalance_measured"] = number_or_null(snap.imbalance_measured);
  json["imbalance_floor"] = number_or_null(snap.imbalance_floor);
  json["imbalance_would_be"] = number_or_null(snap.imbalance_would_be);
  json["imbalance_threshold"] = snap.imbalance_threshold;
  json["worst_layer"] = worst_layer_json(rebalancer.topology(), snap.layer_imbalance);
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

std::string status_json(const Deployment& deployment, const Endpoints& endpoints,
                        std::optional<double> since, Now now) {
  const Journal& journal = deployment.journal();
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
  json["mode_configured"] = to_string(rebalancer.options().mode);
  json["paused"] = snap.paused;
  json["paused_until"] = snap.paused ? number_or_null(paused_until) : Json(nullptr);
  json["leader"] = snap.leader;
  json["leader_name"] = deployment.leader().empty() ? Json(nullptr) : Json(deployment.leader());
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
  json["topology"] = topology_json(rebalancer.topology(), rebalancer.configured());
  json["placement"] = placement_summary(rebalancer.topology(), rebalancer.group());
  json["gpus_down"] =
      rebalancer.group().may_empty_gpus() ? rebalancer.gpus_down() : rebalancer.state().gpus_down;
  json["gpus_lost"] = rebalancer.state().gpus_lost;
  json["gpus_empty"] = rebalancer.state().gpus_empty;
  add_balance(json, deployment, snap, now);
  const double shown = since.value_or(now.unix_seconds - kHistoryShown);
  json["history"] = history_json(journal, shown);
  json["events"] = events_json(journal, shown);
  json["facts"] = facts_json(deployment, snap, now);
  json["next"] = next_json(deployment, snap);
  json["decisions"] = decisions_json(journal);
  json["would_update"] = would_update_json(deployment);
  const double newer = since.value_or(0);
  json["updates"] = updates_json(rebalancer.topology(), journal.updates(), newer);
  json["would_updates"] = updates_json(rebalancer.topology(), journal.would_updates(), newer);
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
