// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/status_view.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "eplbctl/terminal.h"
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

std::string line(const char* name, const std::string& text) {
  return format("  {:11} ", name) + text + "\n";
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

std::string imbalance_line(const json& status) {
  std::string text = "not known without tokens";
  if (status.at("imbalance").is_number()) {
    text = number(status.at("imbalance")) + ", initially " + number(status.at("imbalance_initial"));
  }
  text += "; acts above " + rounded(status.at("imbalance_threshold"));
  if (status.at("imbalance_floor").is_number()) {
    text += "; best " + number(status.at("imbalance_floor"));
  }
  if (status.at("imbalance_measured").is_number()) {
    text += "; measured " + number(status.at("imbalance_measured"));
  }
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

std::string decision_text(const json& status, const json& decision) {
  std::string text = decision.at("verdict").get<std::string>();
  const std::string detail =
      decision.at("detail").is_string() ? decision.at("detail").get<std::string>() : std::string();
  if (!detail.empty()) text += ": " + detail;
  return text + " (" +
         duration_words(status.at("ts").get<double>() - decision.at("since").get<double>()) + ")";
}

std::string health_text(const json& status) {
  const std::string health = status.at("health");
  if (health == "waiting") return "waiting for workers";
  return health == "degraded" ? "DEGRADED" : health;
}

std::string head(const json& status) {
  return status.at("deployment").get<std::string>() + "  " + mode_text(status) + "  " +
         health_text(status) + "\n";
}

std::string body(const json& status) {
  std::string text = placement_line(status) + imbalance_line(status);
  text += workers_line(status);
  text +=
      line("window", grouped(std::llround(status.at("tokens").get<double>())) +
                         " tokens, half-life " + rounded(status.at("half_life_seconds")) + " s");
  if (!status.at("updates").empty()) {
    const json& update = status.at("updates").front();
    text += line("last update", std::to_string(update.at("version").get<uint64_t>()) + ", " +
                                    update.at("reason").get<std::string>() + ": " +
                                    number(update.at("imbalance_before")) + " -> " +
                                    number(update.at("imbalance_after")) + ", " +
                                    grouped(update.at("moves").get<int64_t>()) + " moves, " +
                                    ago(status, update.at("ts")));
  }
  if (status.at("gain_realised").is_number()) {
    const double gain = status.at("gain_realised");
    text +=
        line(gain < 0 ? "it cost" : "it paid", format("{:.3f} of imbalance since", std::abs(gain)));
  }
  if (!status.at("gpus_down").empty()) text += line("GPUs down", status.at("gpus_down").dump());
  if (status.at("would_update").is_object()) {
    const json& update = status.at("would_update");
    text += line("would have", number(update.at("imbalance_before")) + " -> " +
                                   number(update.at("imbalance_after")) + ", " +
                                   grouped(update.at("moves").get<int64_t>()) + " moves, " +
                                   ago(status, update.at("ts")));
  }
  if (status.at("waiting_for").is_string()) {
    text += line("waiting", status.at("waiting_for").get<std::string>());
  }
  for (const json& problem : status.at("problems")) {
    text += line("problem", problem.get<std::string>());
  }
  return text;
}

// The last `columns` points as one line of eight heights, from 1 to `highest`.
std::string sparkline(const std::vector<double>& values, double highest, size_t columns) {
  constexpr const char* kHeights[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::string text;
  const size_t first = values.size() > columns ? values.size() - columns : 0;
  for (size_t i = first; i < values.size(); ++i) {
    const double part = std::clamp((values[i] - 1) / std::max(highest - 1, 0.01), 0.0, 1.0);
    text += values[i] > 0 ? kHeights[std::lround(part * 7)] : " ";
  }
  return text;
}

std::string history_text(const json& status, int columns) {
  std::vector<double> now;
  std::vector<double> initial;
  double highest = 1.01;
  for (const json& point : status.at("history")) {
    now.push_back(point.at(1).is_number() ? point.at(1).get<double>() : 0);
    initial.push_back(point.at(2).is_number() ? point.at(2).get<double>() : 0);
    highest = std::max({highest, now.back(), initial.back()});
  }
  const auto cells = static_cast<size_t>(std::max(columns - 16, 10));
  return line("initial", sparkline(initial, highest, cells)) +
         line("now", sparkline(now, highest, cells));
}

double load_of(const json& ratio) { return ratio.is_number() ? ratio.get<double>() : 0; }

// A bar a GPU, in as many columns as fit; empty where that takes more than `rows`.
std::string gpu_bars(const json& ratios, double highest, int columns, int rows) {
  constexpr int kWidth = 26;
  constexpr int kBar = 12;
  const int across = std::max(1, (columns - 2) / kWidth);
  const int count = static_cast<int>(ratios.size());
  const int down = (count + across - 1) / across;
  std::string text;
  if (down > rows) return text;
  for (int row = 0; row < down; ++row) {
    text += " ";
    for (int gpu = row; gpu < count; gpu += down) {
      const double ratio = load_of(ratios[gpu]);
      const double eighths = std::ceil(ratio / highest * kBar * 8);
      const int blanks = kBar - static_cast<int>(eighths + 7) / 8;
      text += format(" {:4} {:5.2f} ", gpu, ratio) + bar(eighths / (kBar * 8), kBar) +
              std::string(static_cast<size_t>(std::max(0, blanks)), ' ') + "  ";
    }
    text += "\n";
  }
  return text;
}

// A cell a GPU, or where there are too many the fullest of several.
std::string gpu_cells(const json& ratios, double highest, int columns) {
  const auto width = static_cast<size_t>(std::max(columns - 4, 10));
  const size_t each = (ratios.size() + width - 1) / width;
  std::vector<double> cells((ratios.size() + each - 1) / each, 0.0);
  for (size_t gpu = 0; gpu < ratios.size(); ++gpu) {
    cells[gpu / each] = std::max(cells[gpu / each], load_of(ratios[gpu]));
  }
  // sparkline() draws from 1 on, where imbalances begin.
  for (double& cell : cells) cell += 1;
  return "  " + sparkline(cells, highest + 1, width) + "\n";
}

std::string gpus_text(const json& status, int columns, int rows) {
  const json& ratios = status.at("gpu_load_ratio");
  if (!ratios.is_array() || ratios.empty() || rows < 2) return "";
  size_t fullest = 0;
  for (size_t gpu = 0; gpu < ratios.size(); ++gpu) {
    if (load_of(ratios[gpu]) > load_of(ratios[fullest])) fullest = gpu;
  }
  const double most = load_of(ratios[fullest]);
  const double highest = std::max(1.0, most);
  const std::string bars = gpu_bars(ratios, highest, columns, rows - 1);
  return format("  load of each GPU / mean; fullest: GPU {}, {:.2f}\n", fullest, most) +
         (bars.empty() ? gpu_cells(ratios, highest, columns) : bars);
}

std::string decisions_text(const json& status, int most) {
  std::string text = "  decisions\n";
  int shown = 0;
  for (const json& decision : status.at("decisions")) {
    if (shown++ == most) break;
    text += "  " + decision_text(status, decision) + "\n";
  }
  return text;
}

int lines_in(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

std::string status_text(const json& status) {
  std::string text = head(status) + body(status);
  if (!status.at("decisions").empty()) {
    text += line("decided", decision_text(status, status.at("decisions").front()));
  }
  return text;
}

// What tells most stands first; a small terminal goes without the rest.
std::string watch_text(const json& status, int columns, int rows) {
  constexpr int kLeastDecisions = 4;
  constexpr int kMostDecisions = 12;
  const std::string gap = rows >= 20 ? "\n" : "";
  std::string text = head(status) + gap + body(status) + gap + history_text(status, columns) + gap;
  const int decision_rows = kLeastDecisions + 1 + lines_in(gap);
  const std::string gpus = gpus_text(status, columns, rows - 1 - lines_in(text) - decision_rows);
  if (!gpus.empty()) text += gpus + gap;
  const int left = rows - 2 - lines_in(text);
  text += decisions_text(status, std::clamp(left, kLeastDecisions, kMostDecisions));
  return clip_lines(text, columns, rows - 1);
}

}  // namespace eplbd
