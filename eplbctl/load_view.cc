// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/load_view.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "eplbctl/terminal.h"
#include "eplbctl/text.h"

namespace eplbd {
namespace {

std::string or_dash(const char* pattern, std::optional<double> value, double scale = 1) {
  return value ? format(pattern, *value * scale) : "-";
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

std::string load_header() {
  return format("%8s  %9s %9s %9s  %9s %9s %10s %10s\n", "seconds", "initial", "now", "daemon",
                "version", "updates", "moves", "decide_ms");
}

std::string load_line(const LoadFigures& f) {
  return format("%8.1f  %9.3f %9.3f %9s  %9s %9s %10s %10s%s\n", f.seconds, f.imbalance_initial,
                f.imbalance_now, or_dash("%.3f", f.daemon.imbalance).c_str(),
                version_of(f.running).c_str(), grouped(f.updates).c_str(), grouped(f.moves).c_str(),
                or_dash("%.2f", f.daemon.decide_seconds, 1e3).c_str(),
                f.heard ? "" : "  no daemon heard yet");
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
    return format("  %-20s %7.3f  ", name, value) + bar((value - 1) / longest, cells) + "\n";
  };
  std::string text = f.title + "\n\n  imbalance: fullest GPU / mean, 1 is perfect\n";
  text += imbalance("initial placement", f.imbalance_initial);
  text += imbalance("now", f.imbalance_now);
  text +=
      format("  %-20s %7s\n\n", "the daemon's window", or_dash("%.3f", f.daemon.imbalance).c_str());
  text += format("  %-20s %7s  %s\n", "placement", version_of(f.running).c_str(),
                 f.status == "applying" ? "applying the next one" : "");
  text += format("  %-20s %7s  in %s updates, each takes %.3g s to apply\n", "weights moved",
                 grouped(f.moves).c_str(), grouped(f.updates).c_str(), f.apply_seconds);
  text += format("  %-20s %7s  ms\n", "a decision takes",
                 or_dash("%.2f", f.daemon.decide_seconds, 1e3).c_str());
  text +=
      format("  %-20s %7s  sent, %s lost, %s rejected\n", "messages", grouped(f.messages).c_str(),
             or_dash("%.0f", f.daemon.lost).c_str(), or_dash("%.0f", f.daemon.rejected).c_str());
  text += f.heard ? format("\n  %.0f s; Ctrl-C ends it\n", f.seconds)
                  : "\n  no daemon heard yet: does eplbd run with this deployment and addresses?\n";
  return text;
}

}  // namespace eplbd
