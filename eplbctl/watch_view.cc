// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "eplbctl/status_view.h"
#include "eplbctl/terminal.h"
#include "eplbctl/text.h"

namespace eplbd {
namespace {

using nlohmann::json;

constexpr int kWide = 150;        // columns: GPUs and decisions stand beside each other
constexpr int kNameColumns = 17;  // what stands before a line's text
constexpr int kLeastDecisions = 4;
constexpr int kMostDecisions = 30;

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

// The curves of `names`, a line each, on one scale.
std::string history_text(const json& status, int columns) {
  constexpr std::pair<const char*, size_t> kCurves[] = {
      {"initial", 2}, {"worst layer", 3}, {"would be", 6}, {"now", 1}};
  std::vector<double> curves[std::size(kCurves)];
  double highest = 1.01;
  for (const json& point : status.at("history")) {
    for (size_t i = 0; i < std::size(kCurves); ++i) {
      const json& value = point.at(kCurves[i].second);
      curves[i].push_back(value.is_number() ? value.get<double>() : 0);
      highest = std::max(highest, curves[i].back());
    }
  }
  std::string text;
  for (size_t i = 0; i < std::size(kCurves); ++i) {
    const std::vector<double>& curve = curves[i];
    if (std::ranges::all_of(curve, [](double value) { return value <= 0; })) continue;
    text += format("  {:14} ", kCurves[i].first) +
            sparkline(curve, highest, static_cast<size_t>(std::max(columns - 18, 10))) + "\n";
  }
  return text;
}

double load_of(const json& ratio) { return ratio.is_number() ? ratio.get<double>() : 0; }

// Work, and up to `together` what waits for the slowest, of `highest` in all.
std::string time_bar(double work, double together, double highest, int cells) {
  const std::string works = bar(work / highest, cells);
  std::string text = works;
  for (int cell = characters_of(works); cell < std::lround(together / highest * cells); ++cell) {
    text += "░";
  }
  return padded(text, cells);
}

// A bar a GPU, in as many columns as fit; empty where that takes more than `rows`.
std::string gpu_bars(const json& ratios, double together, int columns, int rows) {
  constexpr int kWidth = 26;
  constexpr int kBar = 12;
  const int across = std::max(1, (columns - 2) / kWidth);
  const int count = static_cast<int>(ratios.size());
  const int down = (count + across - 1) / across;
  std::string text;
  if (down > rows) return text;
  double highest = together;
  for (const json& ratio : ratios) highest = std::max(highest, load_of(ratio));
  for (int row = 0; row < down; ++row) {
    text += " ";
    for (int gpu = row; gpu < count; gpu += down) {
      const double work = load_of(ratios[gpu]);
      text += format(" {:4} {:5.2f} ", gpu, work) +
              time_bar(work, work > 0 ? together : 0, highest, kBar) + "  ";
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
  const double together = std::max(1.0, load_of(status.at("imbalance")));
  const std::string bars = gpu_bars(ratios, together, columns, rows - 1);
  return format("  GPUs: work / mean, ░ waits; together {:.2f}; most work: GPU {}, {:.2f}\n",
                together, fullest, most) +
         (bars.empty() ? gpu_cells(ratios, std::max(1.0, most), columns) : bars);
}

std::string decisions_text(const json& status, int most) {
  std::string text = "  decisions\n";
  int shown = 0;
  for (const json& decision : status.at("decisions")) {
    if (shown++ == most) break;
    const json& detail = decision.at("detail");
    text += format("  {} {}: {}\n", local_time(decision.at("ts").get<double>(), "%T"),
                   decision.at("verdict").get<std::string>(),
                   detail.is_string() ? detail.get<std::string>() : "");
  }
  return text;
}

int lines_in(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

// Two texts side by side; the left one takes `width` columns.
std::string beside(const std::string& left, const std::string& right, int width) {
  std::istringstream a(left);
  std::istringstream b(right);
  std::string text;
  for (std::string one, other;;) {
    const bool more = static_cast<bool>(std::getline(a, one));
    const bool other_more = static_cast<bool>(std::getline(b, other));
    if (!more && !other_more) return text;
    if (!more) one.clear();
    if (!other_more) other.clear();
    const std::string clipped = clip_lines(one + "\n", width, 1);
    text += padded(clipped.substr(0, clipped.size() - 1), width) + other + "\n";
  }
}

}  // namespace

// What tells most stands first; a small terminal goes without the rest.
std::string watch_text(const json& status, int columns, int rows) {
  const std::string gap = rows >= 24 ? "\n" : "";
  std::string text = wrap_lines(status_text(status), columns, kNameColumns);
  text += gap + history_text(status, columns) + gap;
  const int left = rows - 2 - lines_in(text);
  if (columns >= kWide) {
    const int half = columns / 2;
    text += beside(gpus_text(status, half, left + 1),
                   decisions_text(status, std::clamp(left, kLeastDecisions, kMostDecisions)), half);
    return clip_lines(text, columns, rows - 1);
  }
  const std::string gpus = gpus_text(status, columns, left - kLeastDecisions - lines_in(gap));
  if (!gpus.empty()) text += gpus + gap;
  text += decisions_text(status,
                         std::clamp(rows - 2 - lines_in(text), kLeastDecisions, kMostDecisions));
  return clip_lines(text, columns, rows - 1);
}

}  // namespace eplbd
