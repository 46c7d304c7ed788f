// SPDX-License-Identifier: Apache-2.0
#include "daemon/control.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

#include "daemon/clock.h"

namespace eplbd {
namespace {

using Json = nlohmann::ordered_json;

HttpResponse json_response(int status, const Json& json) {
  HttpResponse response;
  response.status = status;
  response.body = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  return response;
}

HttpResponse failed(int status, const std::string& detail) {
  return json_response(status, {{"done", false}, {"detail", detail}});
}

Json map_json(const PlacementUpdate& update) {
  Json map = Json::array();
  for (int32_t layer = 0; layer < update.placement.layers(); ++layer) {
    const auto row = update.placement.layer(layer);
    map.push_back(std::vector<int32_t>(row.begin(), row.end()));
  }
  return map;
}

HttpResponse result_response(const OrderResult& result, bool with_map) {
  Json json = {{"done", result.status == OrderResult::Status::done}, {"detail", result.detail}};
  if (!result.warnings.empty()) json["warnings"] = result.warnings;
  if (result.decision && result.decision->update) {
    const PlacementUpdate& update = *result.decision->update;
    json["term"] = update.id.term;
    json["version"] = update.id.version;
    json["reason"] = to_string(update.reason);
    json["moves"] = result.decision->moves;
    json["worst_gpu_moves"] = result.decision->worst_gpu_moves;
    json["layers_changed"] = update.changed_layers.size();
    json["imbalance_before"] = update.imbalance_before;
    json["imbalance_after"] = update.imbalance_after;
    if (with_map) json["physical_to_logical_map"] = map_json(update);
  }
  switch (result.status) {
    case OrderResult::Status::done:
      return json_response(200, json);
    case OrderResult::Status::refused:
      return json_response(409, json);
    case OrderResult::Status::not_saved:
      return json_response(503, json);
  }
  return failed(500, "no such status");
}

OrderDone answer(const HttpRespond& respond, bool with_map = false) {
  return [respond, with_map](const OrderResult& result) {
    respond(result_response(result, with_map));
  };
}

// The body as an object in which only `keys` stand. Throws what is wrong with it.
Json parse_body(const std::string& body, std::initializer_list<std::string_view> keys) {
  if (body.empty()) return Json::object();
  Json json = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw std::runtime_error("the body must be a JSON object");
  for (const auto& [key, value] : json.items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      throw std::runtime_error("unknown key " + key);
    }
  }
  return json;
}

bool absent(const Json& json, const char* key) {
  return !json.contains(key) || json[key].is_null();
}

bool is_dry_run(const Json& json) {
  if (absent(json, "dry_run")) return false;
  if (!json["dry_run"].is_boolean()) throw std::runtime_error("dry_run must be true or false");
  return json["dry_run"].get<bool>();
}

std::optional<double> pause_seconds(const Json& json) {
  if (absent(json, "seconds")) return std::nullopt;
  const double seconds = json["seconds"].is_number() ? json["seconds"].get<double>() : 0;
  if (!(seconds > 0) || seconds > 10 * 365 * 86400.0) {
    throw std::runtime_error("seconds must be a number above 0 and below ten years");
  }
  return seconds;
}

std::optional<Mode> mode_of(const Json& json) {
  if (absent(json, "mode")) return std::nullopt;
  const auto mode =
      json["mode"].is_string() ? from_name<Mode>(json["mode"].get<std::string>()) : std::nullopt;
  if (!mode) throw std::runtime_error("mode must be observe, shadow, active or null");
  return mode;
}

std::optional<uint64_t> version_of(const Json& json) {
  if (absent(json, "version")) return std::nullopt;
  if (!json["version"].is_number_unsigned()) {
    throw std::runtime_error("version must be an integer >= 0");
  }
  return json["version"].get<uint64_t>();
}

// -1: absent, or no integer.
int64_t integer_of(const Json& json, const char* key) {
  return !absent(json, key) && json[key].is_number_integer() ? json[key].get<int64_t>() : -1;
}

Shape shape_of(const Json& json) {
  const auto count = [&](const char* key) {
    const int64_t value = integer_of(json, key);
    if (value >= 1 && value <= INT32_MAX) return static_cast<int32_t>(value);
    throw std::runtime_error(std::string(key) + " must be an integer of at least 1");
  };
  return {.slots = count("slots"), .gpus = count("gpus")};
}

Placement map_of(const Json& json, const Topology& topology) {
  const auto is_row = [&](const Json& row) {
    return row.is_array() && row.size() == static_cast<size_t>(topology.slots);
  };
  const Json* map =
      absent(json, "physical_to_logical_map") ? nullptr : &json["physical_to_logical_map"];
  if (map == nullptr || !map->is_array() || map->size() != static_cast<size_t>(topology.layers) ||
      !std::all_of(map->begin(), map->end(), is_row)) {
    throw std::runtime_error("physical_to_logical_map must have " +
                             std::to_string(topology.layers) + " rows of " +
                             std::to_string(topology.slots) + " experts");
  }
  std::vector<int32_t> experts;
  for (const Json& row : *map) {
    for (const Json& expert : row) {
      const bool fits = expert.is_number_integer() && expert.get<int64_t>() >= kNoExpert &&
                        expert.get<int64_t>() < topology.logical_experts;
      if (!fits) throw std::runtime_error("physical_to_logical_map: no expert " + expert.dump());
      experts.push_back(expert.get<int32_t>());
    }
  }
  return Placement(topology, std::move(experts));
}

}  // namespace

Control::Control(Deployment& deployment, std::function<void(Reloaded)> reload)
    : deployment_(deployment), reload_(std::move(reload)) {}

void Control::order_gpu(const HttpRequest& request, const HttpRespond& respond) {
  const Json json = parse_body(request.body, {"gpu", "action"});
  const int32_t gpus = deployment_.rebalancer().topology().gpus;
  const int64_t gpu = integer_of(json, "gpu");
  if (gpu < 0 || gpu >= gpus) {
    throw std::runtime_error("gpu must be an integer from 0 to " + std::to_string(gpus - 1));
  }
  const std::string action =
      !absent(json, "action") && json["action"].is_string() ? json["action"] : Json("");
  using Order = Deployment::GpuOrder;
  const auto order = action == "drain"     ? std::optional(Order::drain)
                     : action == "lost"    ? std::optional(Order::lost)
                     : action == "restore" ? std::optional(Order::restore)
                                           : std::nullopt;
  if (!order) throw std::runtime_error("action must be drain, lost or restore");
  deployment_.order_gpu(static_cast<int32_t>(gpu), *order, answer(respond));
}

void Control::reload(const HttpRequest& request, const HttpRespond& respond) {
  parse_body(request.body, {});
  reload_([this, respond](const std::string& refused) {
    if (!refused.empty()) return respond(failed(409, refused));
    std::string detail = "the configuration was read again";
    const Rebalancer& rebalancer = deployment_.rebalancer();
    if (rebalancer.mode() != rebalancer.options().mode) {
      detail += "; the mode stays " + std::string(to_string(rebalancer.mode())) +
                ", as an operator set it (eplbctl mode config: as configured)";
    }
    respond(json_response(200, {{"done", true}, {"detail", detail}}));
  });
}

HttpResponse Control::counts() {
  HttpResponse response;
  response.content_type = "application/octet-stream";
  response.body = deployment_.totals().read(deployment_.rebalancer().topology(), read_clock());
  response.etag = "\"" + deployment_.totals().series() + "\"";
  return response;
}

// What is asked for again within ReceivedLog::kForgotten goes on where it ended.
HttpResponse Control::messages(const HttpRequest& request) {
  const std::string after(request.parameter("after"));
  const uint64_t last = after.empty() ? 0 : std::strtoull(after.c_str(), nullptr, 10);
  Json list = Json::array();
  for (const ReceivedLog::Entry& entry : deployment_.received().ask(read_clock().steady)) {
    if (entry.number <= last) continue;
    list.push_back({{"number", entry.number},
                    {"ts", entry.unix_seconds},
                    {"sender", entry.sender},
                    {"type", entry.type.empty() ? Json(nullptr) : Json(entry.type)},
                    {"taken", entry.taken},
                    {"detail", entry.text}});
  }
  return json_response(200, {{"messages", std::move(list)}});
}

bool Control::dispatch(const HttpRequest& request, const HttpRespond& respond) {
  const std::string& path = request.path;
  if (path != "/v1/reload" && path != "/v1/leader/step-down") {
    if (const auto why = deployment_.refuses_orders()) return respond(failed(409, *why)), true;
  }
  const auto body = [&](std::initializer_list<std::string_view> keys) {
    return parse_body(request.body, keys);
  };
  if (path == "/v1/rebalance") {
    const bool dry_run = is_dry_run(body({"dry_run"}));
    deployment_.rebalance(dry_run, answer(respond, dry_run));
  } else if (path == "/v1/pause") {
    deployment_.pause(pause_seconds(body({"seconds"})), answer(respond));
  } else if (path == "/v1/resume") {
    body({});
    deployment_.resume(answer(respond));
  } else if (path == "/v1/mode") {
    deployment_.set_mode(mode_of(body({"mode"})), answer(respond));
  } else if (path == "/v1/rollback") {
    const Json json = body({"version", "dry_run"});
    const bool dry_run = is_dry_run(json);
    deployment_.roll_back(version_of(json), dry_run, answer(respond, dry_run));
  } else if (path == "/v1/import") {
    const Json json = body({"physical_to_logical_map", "dry_run"});
    const bool dry_run = is_dry_run(json);
    deployment_.import(map_of(json, deployment_.rebalancer().topology()), dry_run,
                       answer(respond, dry_run));
  } else if (path == "/v1/resize") {
    const Json json = body({"gpus", "slots", "dry_run"});
    const bool dry_run = is_dry_run(json);
    deployment_.resize(shape_of(json), dry_run, answer(respond, dry_run));
  } else if (path == "/v1/gpu") {
    order_gpu(request, respond);
  } else if (path == "/v1/leader/step-down") {
    body({});
    deployment_.step_down(answer(respond));
  } else if (path == "/v1/reload") {
    reload(request, respond);
  } else {
    return false;
  }
  return true;
}

bool Control::handle(const HttpRequest& request, const HttpRespond& respond) {
  if (request.path.rfind("/v1/", 0) != 0) return false;
  if (request.path == "/v1/messages" && request.method == "GET") {
    respond(messages(request));
    return true;
  }
  if (request.path == "/v1/counts" && request.method == "GET") {
    respond(counts());
    return true;
  }
  if (request.method != "POST") {
    HttpResponse response = failed(405, "POST only");
    response.allow = "POST";
    respond(response);
    return true;
  }
  try {
    if (!dispatch(request, respond)) respond(failed(404, "no such order: " + request.path));
  } catch (const std::exception& error) {
    respond(failed(400, error.what()));
  }
  return true;
}

}  // namespace eplbd
