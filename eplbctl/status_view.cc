// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/status_view.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "eplbctl/text.h"

namespace eplbd {
namespace {

using nlohmann::json;

std::string number(const json& value) {
  return value.is_number() ? format("{:.3f}", value.get<double>()) : "-";
}

std::string rounded(const json& value) {
  return value.is_number() ? format("{:.4g}", value.get<double>()) : "-";
}

std::string id_text(const json& id) {
  const auto version = id.at("version").get<uint64_t>();
  if (version == 0) return "initial";
  return std::to_string(version) + " (term " + std::to_string(id.at("term").get<uint64_t>()) + ")";
}

std::string line(const std::string& name, const std::string& text) {
  return format("  {:14} ", name) + text + "\n";
}

std::string ago(const json& status, const json& ts) {
  return duration_words(status.at("ts").get<double>() - ts.get<double>()) + " ago";
}

std::string mode_text(const json& status) {
  std::string text = status.at("mode");
  if (status.at("paused").get<bool>()) {
    text += ", paused";
    const json& until = status.at("paused_until");
    text += until.is_number()
                ? " for " + duration_words(until.get<double>() - status.at("ts").get<double>())
                : " until resumed";
  }
  return text;
}

std::string placement_line(const json& status) {
  const json& placement = status.at("placement");
  std::string text = id_text(placement);
  if (placement.at("version") != 0) {
    text +=
        ", " + placement.at("reason").get<std::string>() + ", " + ago(status, placement.at("ts"));
  }
  if (!placement.at("applied").get<bool>()) {
    text += "; workers still run " + id_text(placement.at("running"));
  }
  return line("placement", text);
}

// The page has the same names for these.
std::string imbalance_line(const json& status) {
  if (!status.at("imbalance").is_number()) return line("imbalance", "not known without tokens");
  std::string text = number(status.at("imbalance"));
  const auto add = [&](const char* name, const char* key) {
    if (status.at(key).is_number()) text += format(", {} {}", name, number(status.at(key)));
  };
  add("initial placement", "imbalance_initial");
  add("best possible", "imbalance_floor");
  add("measured by workers", "imbalance_measured");
  add("would be", "imbalance_would_be");
  return line("imbalance", text);
}

std::string workers_line(const json& status) {
  size_t live = 0;
  size_t behind = 0;
  uint64_t lost = 0;
  for (const json& worker : status.at("workers")) {
    live += worker.at("live").get<bool>() ? 1 : 0;
    behind += worker.at("behind").get<bool>() ? 1 : 0;
    lost += worker.at("lost").get<uint64_t>();
  }
  std::string text = std::to_string(live) + " live of " +
                     std::to_string(status.at("workers").size()) + ", " + std::to_string(behind) +
                     " behind, " + grouped(static_cast<int64_t>(lost)) + " messages lost";
  const json& group = status.at("group");
  if (group.is_object()) {
    text += "; " + group.at("source").get<std::string>() + " says " +
            group.at("status").get<std::string>();
    if (group.at("error").is_string() && group.at("error") != "") {
      text += ": " + group.at("error").get<std::string>();
    }
  }
  return line("workers", text);
}

std::string health_text(const json& status) {
  const std::string health = status.at("health");
  if (health == "waiting") return "waiting for workers";
  return health == "degraded" ? "DEGRADED" : health;
}

// The daemon's own sentences.
std::string facts(const json& status) {
  std::string text;
  for (const json& fact : status.at("facts")) {
    const std::string name = fact.at("name");
    std::string said = fact.at("text");
    const json& at = status.at("next").at("possible_at");
    if (name == "next update" && at.is_number()) {
      said += ", at " + local_time(at.get<double>(), "%T");
    }
    text += line(name, said);
  }
  return text;
}

}  // namespace

std::string status_text(const json& status) {
  std::string text = status.at("deployment").get<std::string>() + "  " + mode_text(status) + "  " +
                     health_text(status) + "\n";
  text += imbalance_line(status) + facts(status) + placement_line(status) + workers_line(status);
  text +=
      line("window", grouped(std::llround(status.at("tokens").get<double>())) +
                         " tokens, half-life " + rounded(status.at("half_life_seconds")) + " s");
  if (!status.at("gpus_down").empty()) text += line("GPUs down", status.at("gpus_down").dump());
  if (status.at("waiting_for").is_string()) {
    text += line("waiting", status.at("waiting_for").get<std::string>());
  }
  for (const json& problem : status.at("problems")) {
    text += line("problem", problem.get<std::string>());
  }
  return text;
}

}  // namespace eplbd
