// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/status_view.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "eplbctl/terminal.h"

namespace eplbd {
namespace {

using Catch::Contains;
using nlohmann::json;

json status_of(int gpus) {
  json status = json::parse(R"({
    "deployment": "deepseek-v3-decode", "mode": "active", "paused": false, "paused_until": null,
    "health": "healthy", "waiting_for": null, "problems": [], "ts": 1000, "gpus_down": [],
    "placement": {"term": 900, "version": 12, "ts": 990, "reason": "threshold", "applied": true,
                  "running": {"term": 900, "version": 12}},
    "imbalance": 1.0461, "imbalance_initial": 1.9432, "imbalance_measured": 1.0601,
    "imbalance_floor": 1.0131, "imbalance_would_be": null,
    "facts": [{"name": "verdict", "text": "balanced: imbalance 1.046"},
              {"name": "worst layer", "text": "layer 7 with 1.080"},
              {"name": "next update", "text": "possible in 1m 5s: cooldown"}],
    "next": {"possible_at": null},
    "tokens": 44700000.2, "half_life_seconds": 2.0,
    "workers": [{"live": true, "behind": false, "lost": 0}],
    "group": {"source": "dp0", "status": "applied", "error": null}})");
  for (int i = 0; i < 20; ++i) {
    status["history"].push_back({980 + i, 1.04, 1.9, 1.08, nullptr, 1.01, nullptr});
    status["decisions"].push_back(
        {{"verdict", "balanced"}, {"detail", "imbalance 1.046, not above 1.1"}, {"ts", 980 - i}});
  }
  status["gpu_load_ratio"] = json::array();
  for (int gpu = 0; gpu < gpus; ++gpu) {
    status["gpu_load_ratio"].push_back(gpu == 17 ? 1.25 : 0.99);
  }
  return status;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

size_t characters(const std::string& line) {
  return static_cast<size_t>(
      std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

TEST_CASE("a watch fits the terminal, whatever its size", "[eplbctl]") {
  for (const int gpus : {0, 8, 32, 320}) {
    for (const auto& [columns, rows] : {std::pair{80, 24}, {20, 5}, {40, 8}, {200, 60}, {1, 1}}) {
      INFO(gpus << " GPUs, " << columns << "x" << rows);
      const auto lines = lines_of(watch_text(status_of(gpus), columns, rows));
      CHECK(lines.size() < static_cast<size_t>(std::max(rows, 1)));
      for (const std::string& line : lines) CHECK(characters(line) <= static_cast<size_t>(columns));
    }
  }
}

TEST_CASE("a watch of 80 by 24 has every figure, every GPU and the last decisions", "[eplbctl]") {
  const std::string text = watch_text(status_of(32), 80, 24);
  INFO(text);
  for (const char* figure :
       {"deepseek-v3-decode  active  healthy", "12 (term 900)", "1.046, initial placement 1.943",
        "best possible 1.013", "1.060", "44,700,000 tokens", "worst layer    layer 7 with 1.080",
        "next update    possible in 1m 5s", "together 1.05; most work: GPU 17"}) {
    CHECK_THAT(text, Contains(figure));
  }
  const auto lines = lines_of(text);
  const auto cells = std::find_if(lines.begin(), lines.end(), [](const std::string& line) {
    return line.find("most work") != std::string::npos;
  });
  REQUIRE(cells + 1 < lines.end());
  CHECK(characters(cells[1]) == 2 + 32);
  CHECK(std::count_if(lines.begin(), lines.end(), [](const std::string& line) {
          return line.find(" balanced: imbalance 1.046, not") != std::string::npos;
        }) >= 4);
}

TEST_CASE("a wide watch has GPUs and decisions beside each other", "[eplbctl]") {
  const auto lines = lines_of(watch_text(status_of(32), 200, 50));
  const auto both = std::find_if(lines.begin(), lines.end(), [](const std::string& line) {
    return line.find("most work") != std::string::npos &&
           line.find("  decisions") != std::string::npos;
  });
  REQUIRE(both + 1 < lines.end());
  CHECK_THAT(both[1], Contains(" 0  0.99 ") && Contains("balanced"));
}

TEST_CASE("a status names the last decision and what is wrong", "[eplbctl]") {
  json status = status_of(8);
  CHECK_THAT(status_text(status), Contains("balanced: imbalance 1.046"));
  status["next"]["possible_at"] = 1065;
  CHECK_THAT(status_text(status), Contains("possible in 1m 5s: cooldown, at "));
  status["health"] = "degraded";
  status["problems"] = {"the disk is full"};
  status["paused"] = true;
  status["paused_until"] = 1060;
  CHECK_THAT(status_text(status),
             Contains("DEGRADED") && Contains("the disk is full") && Contains("paused for 1m"));
  status["health"] = "waiting";
  status["waiting_for"] = "nobody sends counts: the last came from dp0 40 s ago";
  CHECK_THAT(status_text(status),
             Contains("waiting for workers") && Contains("the last came from dp0"));
  status["imbalance_would_be"] = 1.031;
  CHECK_THAT(status_text(status), Contains("would be 1.031"));
  status["imbalance"] = status["imbalance_initial"] = nullptr;
  CHECK_THAT(status_text(status), Contains("imbalance      not known without tokens"));
}

TEST_CASE("long lines go on below, between words", "[eplbctl]") {
  CHECK(wrap_lines("ab cd ef\nx\n", 5, 2) == "ab cd\n  ef\nx\n");
  CHECK(wrap_lines("  name says a\n", 11, 7) == "  name says\n       a\n");
  CHECK(wrap_lines("abcdefgh\n", 3, 2) == "abcdefgh\n");
  CHECK(wrap_lines("", 3, 2).empty());
}

TEST_CASE("lines are clipped by characters, not bytes", "[eplbctl]") {
  CHECK(clip_lines("█▂▂\nabcdef\nx\n", 2, 2) == "█▂\nab\n");
}

}  // namespace
}  // namespace eplbd
