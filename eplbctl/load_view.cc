// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/load_view.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "eplbctl/fleet.h"
#include "eplbctl/terminal.h"
#include "eplbctl/text.h"

namespace eplbd {
namespace {

std::string or_dash(std::optional<double> value, int decimals, double scale = 1) {
  return value ? format("{:.{}f}", *value * scale, decimals) : "-";
}

std::string version_of(const PlacementId& id) {
  return id.version == 0 ? "initial" : std::to_string(id.version);
}

}  // namespace

DaemonFigures daemon_figures(const nlohmann::json& status) {
  const auto number = [&](const char* key) {
    const nlohmann::json& value = status.at(key);
    return value.is_number() ? std::optional(value.get<double>()) : std::nullopt;
  };
  double lost = 0;
  for (const nlohmann::json& worker : status.at("workers")) lost += worker.at("lost").get<double>();
  return {number("imbalance"), number("decide_seconds"), lost, number("messages_rejected")};
}

std::string who_is_there(const nlohmann::json& status, const std::string& deployment) {
  const std::string name = status.at("deployment");
  if (name != deployment) return "this is the daemon of " + name + ", not of " + deployment;
  std::vector<std::string> live;
  for (const nlohmann::json& worker : status.at("workers")) {
    const std::string source = worker.at("source");
    if (worker.at("live").get<bool>() && !is_simulated(source)) live.push_back(source);
  }
  if (!live.empty()) {
    constexpr size_t kNamed = 4;
    const std::span named(live.data(), std::min(live.size(), kNamed));
    return format("{} has live workers ({}{}): they would get placements made of simulated load",
                  name, fmt::join(named, ", "), live.size() > kNamed ? ", ..." : "");
  }
  const nlohmann::json& group = status.at("group");
  const nlohmann::json& placement = status.at("placement");
  if (group.is_object() ? is_simulated(group.at("source").get<std::string>())
                        : placement.at("version").get<uint64_t>() == 0) {
    return "";
  }
  const std::string whose = group.is_object()
                                ? "the group of " + group.at("source").get<std::string>()
                                : "a group that is not connected now";
  return format("{} holds placement version {} of {}: it would adopt another", name,
                placement.at("version").get<uint64_t>(), whose);
}

std::string load_header() {
  return format("{:>8}  {:>9} {:>9} {:>9}  {:>9} {:>9} {:>10} {:>10}\n", "seconds", "initial",
                "now", "daemon", "version", "updates", "moves", "decide_ms");
}

std::string load_line(const LoadFigures& f) {
  return format("{:8.1f}  {:9.3f} {:9.3f} {:>9}  {:>9} {:>9} {:>10} {:>10}{}\n", f.seconds,
                f.imbalance_initial, f.imbalance_now, or_dash(f.daemon.imbalance, 3),
                version_of(f.running), grouped(f.updates), grouped(f.moves),
                or_dash(f.daemon.decide_seconds, 2, 1e3), f.heard ? "" : "  no daemon heard yet");
}

std::string load_json(const LoadFigures& f) {
  nlohmann::ordered_json json;
  const auto put = [&](const char* key, std::optional<double> value) {
    json[key] = value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
  };
  json["seconds"] = f.seconds;
  json["imbalance_initial"] = f.imbalance_initial;
  json["imbalance"] = f.imbalance_now;
  put("imbalance_daemon", f.daemon.imbalance);
  json["term"] = f.running.term;
  json["version"] = f.running.version;
  json["status"] = f.status;
  json["updates"] = f.updates;
  json["moves"] = f.moves;
  json["messages"] = f.messages;
  put("decide_seconds", f.daemon.decide_seconds);
  put("messages_lost", f.daemon.lost);
  put("messages_rejected", f.daemon.rejected);
  json["daemon_heard"] = f.heard;
  return json.dump() + "\n";
}

std::string load_screen(const LoadFigures& f, int columns) {
  const double longest = std::max({f.imbalance_initial, f.imbalance_now, 1.01}) - 1;
  const int cells = std::clamp(columns - 34, 0, 50);
  const auto imbalance = [&](const char* name, double value) {
    return format("  {:20} {:7.3f}  ", name, value) + bar((value - 1) / longest, cells) + "\n";
  };
  std::string text = f.title + "\n\n  imbalance: fullest GPU / mean, 1 is perfect\n";
  text += imbalance("initial placement", f.imbalance_initial);
  text += imbalance("now", f.imbalance_now);
  text += format("  {:20} {:>7}\n\n", "the daemon's window", or_dash(f.daemon.imbalance, 3));
  text += format("  {:20} {:>7}  {}\n", "placement", version_of(f.running),
                 f.status == "applying" ? "applying the next one" : "");
  text += format("  {:20} {:>7}  in {} updates, each takes {:.3g} s to apply\n", "weights moved",
                 grouped(f.moves), grouped(f.updates), f.apply_seconds);
  text +=
      format("  {:20} {:>7}  ms\n", "a decision takes", or_dash(f.daemon.decide_seconds, 2, 1e3));
  text += format("  {:20} {:>7}  sent, {} lost, {} rejected\n", "messages", grouped(f.messages),
                 or_dash(f.daemon.lost, 0), or_dash(f.daemon.rejected, 0));
  text += f.heard ? format("\n  {:.0f} s; Ctrl-C ends it\n", f.seconds)
                  : "\n  no daemon heard yet: does eplbd run with this deployment and addresses?\n";
  return text;
}

}  // namespace eplbd
