// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/advise.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "config/config.h"
#include "eplbctl/errors.h"
#include "eplbctl/file.h"
#include "eplbctl/progress.h"
#include "eplbctl/text.h"

namespace eplbd {
namespace {

using nlohmann::ordered_json;

constexpr double kLeastGain = 0.01;  // of balancedness: less is not worth memory
constexpr double kStraight = 0.02;   // of the rise: a smaller bend is none
constexpr char kColour[] = "#00856a";
constexpr char kStaticColour[] = "#888";

// Of the weights that hold every expert once.
double memory_ratio(const SlotsScore& one, const TraceFile& trace) {
  return static_cast<double>(one.slots) / trace.experts();
}

double bytes_per_gpu(const SlotsScore& one, const TraceFile& trace, const AdviseOptions& options) {
  return static_cast<double>(one.slots) / options.shape.gpus * trace.layers() *
         options.expert_bytes;
}

std::string advice(std::span<const SlotsScore> scores, const TraceFile& trace) {
  const size_t at = knee_of(scores);
  const SlotsScore& knee = scores[at];
  const SlotsScore& last = scores.back();
  const int32_t redundant = knee.slots - trace.experts();
  std::string text =
      format("{} slots are the knee: {} redundant expert{}, balancedness {:.3f}", knee.slots,
             redundant, redundant == 1 ? "" : "s", knee.score.balancedness);
  if (at > 0) {
    text += format(" (with {}: {:.3f})", scores.front().slots, scores.front().score.balancedness);
  }
  if (at + 1 < scores.size()) {
    text +=
        format("; up to {} slots, {:.0f} % more weights, would bring {:.3f}", last.slots,
               (static_cast<double>(last.slots) / knee.slots - 1) * 100, last.score.balancedness);
  } else if (at > 0) {
    text += "; more slots than these may pay too";
  }
  return text + ".";
}

ordered_json to_json(std::span<const SlotsScore> scores, const TraceFile& trace,
                     const AdviseOptions& options) {
  ordered_json json;
  json["steps"] = trace.steps();
  json["layers"] = trace.layers();
  json["logical_experts"] = trace.experts();
  json["gpus"] = options.shape.gpus;
  json["knee"] = scores[knee_of(scores)].slots;
  for (const SlotsScore& one : scores) {
    ordered_json row;
    row["slots"] = one.slots;
    row["redundant_experts"] = one.slots - trace.experts();
    row["balancedness"] = one.score.balancedness;
    row["static_balancedness"] = one.score.static_balancedness;
    row["moves"] = one.score.moves;
    row["updates"] = one.score.updates;
    row["memory_ratio"] = memory_ratio(one, trace);
    if (options.expert_bytes > 0) {
      row["memory_bytes_per_gpu"] = bytes_per_gpu(one, trace, options);
    }
    json["sweep"].push_back(std::move(row));
  }
  json["summary"] = advice(scores, trace);
  return json;
}

void print_table(std::span<const SlotsScore> scores, const TraceFile& trace,
                 const AdviseOptions& options) {
  const bool bytes = options.expert_bytes > 0;
  std::cout << format("{:>6} {:>10} {:>12} {:>8} {:>9} {:>8} {:>9}{}\n", "slots", "redundant",
                      "balancedness", "static", "moves", "updates", "memory",
                      bytes ? format("{:>10}", "GB/GPU") : "");
  const size_t knee = knee_of(scores);
  for (size_t i = 0; i < scores.size(); ++i) {
    const SlotsScore& one = scores[i];
    std::cout << format("{:6} {:10} {:12.4f} {:8.4f} {:>9} {:>8} {:+8.1f}%", one.slots,
                        one.slots - trace.experts(), one.score.balancedness,
                        one.score.static_balancedness, grouped(one.score.moves),
                        grouped(one.score.updates), (memory_ratio(one, trace) - 1) * 100);
    if (bytes) std::cout << format("{:10.1f}", bytes_per_gpu(one, trace, options) / 1e9);
    std::cout << (i == knee ? "  <- knee\n" : "\n");
  }
  std::cout << "\nbalancedness: mean GPU load / fullest, of the trace as eplbd would balance it; "
               "1 is perfect\n"
               "static: the same, had the initial placement been kept\n"
               "moves: weights of one expert of one layer fetched by one GPU\n"
               "memory: of expert weights, over every expert once\n\n"
            << advice(scores, trace) << '\n';
}

}  // namespace

std::vector<int32_t> usual_slots(int32_t logical_experts, int32_t gpus) {
  const int32_t first = (logical_experts + gpus - 1) / gpus * gpus;
  const int32_t most = std::max(2 * logical_experts, first + 2 * gpus);
  std::vector<int32_t> slots;
  for (const int32_t more : {0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32}) {
    const int32_t one = first + more * gpus;
    if (one <= most && one / gpus <= logical_experts) slots.push_back(one);
  }
  return slots;
}

std::vector<SlotsScore> sweep_slots(const TraceFile& trace, const Topology& topology,
                                    std::span<const int32_t> slots, const RebalancerOptions& rules,
                                    const VirtualTime& time) {
  std::vector<SlotsScore> scores;
  std::vector<Topology> shapes;
  for (const int32_t one : slots) {
    shapes.push_back(topology);
    shapes.back().slots = one;
    for (const std::string& problem : shapes.back().problems()) throw UsageError(problem);
  }
  for (const Topology& shape : shapes) {
    Progress progress(std::to_string(shape.slots) + " slots", trace.steps());
    scores.push_back({shape.slots, replay(trace, shape, rules, time, [&](const ReplayStep& step) {
                        progress.done(step.step);
                      })});
  }
  return scores;
}

size_t knee_of(std::span<const SlotsScore> scores) {
  std::vector<double> best;  // of as many slots or fewer
  for (const SlotsScore& one : scores) {
    best.push_back(best.empty() ? one.score.balancedness
                                : std::max(best.back(), one.score.balancedness));
  }
  const double rise = best.back() - best.front();
  if (rise < kLeastGain) return 0;
  size_t knee = scores.size() - 1;
  double furthest = kStraight;
  for (size_t i = 0; i < scores.size(); ++i) {
    const double along = static_cast<double>(scores[i].slots - scores.front().slots) /
                         (scores.back().slots - scores.front().slots);
    const double above = (best[i] - best.front()) / rise - along;
    if (above <= furthest) continue;
    furthest = above;
    knee = i;
  }
  return knee;
}

Chart slots_chart(std::span<const SlotsScore> scores) {
  Chart chart{.title = "balancedness over slots", .width = 460, .height = 274};
  ChartSeries ours{"eplbd", kColour, {}};
  ChartSeries kept{"initial placement kept", kStaticColour, {}};
  ours.dots = kept.dots = true;
  double least = 1;
  const size_t knee = knee_of(scores);
  for (size_t i = 0; i < scores.size(); ++i) {
    const auto slots = static_cast<double>(scores[i].slots);
    ours.points.push_back({slots, scores[i].score.balancedness, i == knee ? "knee" : ""});
    kept.points.push_back({slots, scores[i].score.static_balancedness});
    least = std::min({least, ours.points.back().y, kept.points.back().y});
  }
  chart.x = {static_cast<double>(scores.front().slots),
             std::max<double>(scores.back().slots, scores.front().slots + 1), false, "slots"};
  for (const SlotsScore& one : scores) {
    chart.x.ticks.push_back({static_cast<double>(one.slots), std::to_string(one.slots)});
  }
  chart.y = linear_axis(std::floor(least * 10) / 10, 1, "");
  chart.series = {std::move(ours), std::move(kept)};
  return chart;
}

int run_advise(const AdviseOptions& options) {
  RebalancerOptions rules;
  if (!options.config.empty()) rules = read_config(options.config, Require::rules_only).rebalancer;
  rules.mode = Mode::active;  // what it would do is the question
  const TraceFile trace(options.trace);
  std::vector<int32_t> slots =
      options.slots.empty() ? usual_slots(trace.experts(), options.shape.gpus) : options.slots;
  std::sort(slots.begin(), slots.end());
  slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  if (slots.empty()) throw UsageError("no number of slots fits so many GPUs: give --slots");
  ShapeOptions shape = options.shape;
  shape.slots = slots.front();
  const Topology topology = topology_from(shape, trace.layers(), trace.experts());
  const auto scores = sweep_slots(trace, topology, slots, rules, options.time);
  if (!options.picture.empty()) {
    Chart chart = slots_chart(scores);
    const double legend = 30;
    write_file(options.picture,
               svg(chart.width, chart.height + legend,
                   draw(chart) + draw_legend(chart.series, "", 48, chart.height + 14), "white"));
  }
  if (options.json) {
    std::cout << to_json(scores, trace, options).dump(2) << '\n';
  } else {
    print_table(scores, trace, options);
  }
  return 0;
}

}  // namespace eplbd
