// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/report.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "eplbctl/advise.h"
#include "eplbctl/chart.h"
#include "eplbctl/file.h"
#include "eplbctl/text.h"

namespace eplbd {
namespace {

constexpr char kOurs[] = "#00856a";
constexpr char kEngine[] = "#c2571a";
constexpr char kStatic[] = "#888";
constexpr char kOther[] = "#7b5ea7";
constexpr size_t kWorstLayers = 10;
constexpr size_t kMostPoints = 600;  // of a curve over time: more than pixels is no more to see

constexpr char kHead[] = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>eplbd: what a trace would have come to</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin-top: 2em; }
.sum { font-size: 1.15em; border-left: 4px solid #00856a; padding-left: .8em; }
.wide { overflow-x: auto; }
svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .8em; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
small { opacity: .75; }
</style></head><body>
)";

using Cells = std::vector<std::string>;

std::string table_row(const Cells& cells, const char* tag) {
  std::string out = "<tr>";
  for (const std::string& cell : cells) out += format("<{0}>{1}</{0}>", tag, escaped(cell));
  return out + "</tr>\n";
}

std::string table(const Cells& head, const std::vector<Cells>& rows) {
  std::string out = "<div class=\"wide\"><table>\n" + table_row(head, "th");
  for (const Cells& row : rows) out += table_row(row, "td");
  return out + "</table></div>\n";
}

std::string picture(const Chart& chart, const std::string& level = "") {
  constexpr double kLegend = 28;
  return "<div class=\"wide\">" +
         svg(chart.width, chart.height + kLegend,
             draw(chart) + draw_legend(chart.series, level, 48, chart.height + 16), "") +
         "</div>\n";
}

// The rows that are told apart in every picture: ours, and an engine's.
struct Report {
  const ReplayOptions& options;
  const TraceFile& trace;
  const Topology& topology;
  std::vector<ReplayRow> rows;
  size_t ours = 0;
  size_t engine = 0;

  const ReplayRow& our_row() const { return rows[ours]; }
  const ReplayRow& engine_row() const { return rows[engine]; }
};

bool is_incremental(const ReplayRow& row) {
  const auto* rules = std::get_if<RebalancerOptions>(&row.way);
  return rules && rules->balancer.policy == Policy::incremental;
}

size_t find_or_run(Report& report, bool (*wanted)(const ReplayRow&), ReplayRow otherwise) {
  auto& rows = report.rows;
  const auto found = std::find_if(rows.begin(), rows.end(), wanted);
  if (found != rows.end()) return static_cast<size_t>(found - rows.begin());
  run_row(report.trace, report.topology, report.options.time, otherwise);
  rows.push_back(std::move(otherwise));
  return rows.size() - 1;
}

// Means over runs of steps where there are too many.
ChartSeries over_time(const Report& report, const ReplayRow& row, const char* colour,
                      double ReplayStep::*value) {
  ChartSeries series{row.name, colour, {}};
  const size_t steps = row.timeline.size();
  const size_t each = (steps + kMostPoints - 1) / kMostPoints;
  const double seconds = report.options.time.step_seconds;
  for (size_t first = 0; first < steps; first += each) {
    double sum = 0;
    size_t count = 0;
    for (size_t i = first; i < std::min(first + each, steps); ++i) {
      if (row.timeline[i].*value <= 0) continue;  // no load
      sum += row.timeline[i].*value;
      ++count;
    }
    if (count == 0) continue;
    series.points.push_back(
        {static_cast<double>(first) * seconds, sum / static_cast<double>(count)});
  }
  for (const ReplayStep& step : row.timeline) {
    if (step.moves > 0) series.events.push_back(static_cast<double>(step.step + 1) * seconds);
  }
  return series;
}

Chart time_chart(const Report& report) {
  Chart chart{.title = "imbalance: fullest GPU / mean, 1 is perfect", .width = 920, .height = 320};
  ChartSeries kept = over_time(report, report.our_row(), kStatic, &ReplayStep::imbalance_static);
  kept.name = "initial placement kept";
  kept.events.clear();
  chart.series = {std::move(kept),
                  over_time(report, report.engine_row(), kEngine, &ReplayStep::imbalance),
                  over_time(report, report.our_row(), kOurs, &ReplayStep::imbalance)};
  double most = 1.1;
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& point : series.points) most = std::max(most, point.y);
  }
  const double seconds =
      static_cast<double>(report.trace.steps()) * report.options.time.step_seconds;
  chart.x = linear_axis(0, seconds, "seconds; ticks at the foot: updates", 10);
  chart.y = linear_axis(1, most, "");
  return chart;
}

// Ours at several prices of a move, and the engine at several intervals.
Chart moves_chart(const Report& report) {
  ChartSeries ours{"eplbd", kOurs, {}};
  ChartSeries engine{report.engine_row().name, kEngine, {}};
  ChartSeries others{"other rows", kOther, {}};
  ours.dots = engine.dots = others.dots = true;
  others.line = engine.label_above = false;
  const auto add = [&](ChartSeries& to, const ReplayRow& row, std::string label) {
    if (row.score.moves == 0) return;
    to.points.push_back(
        {static_cast<double>(row.score.moves), row.score.balancedness, std::move(label)});
  };
  add(ours, report.our_row(), "as configured");
  add(engine, report.engine_row(), "as configured");
  const auto& rules = std::get<RebalancerOptions>(report.our_row().way);
  for (const double factor : {0.1, 0.3, 2.0, 4.0}) {
    RebalancerOptions priced = rules;
    priced.trigger.imbalance = 1 + (rules.trigger.imbalance - 1) * factor;
    priced.trigger.settle = 1 + (rules.trigger.settle - 1) * factor;
    priced.trigger.min_gain = rules.trigger.min_gain * factor;
    ReplayRow row{"eplbd", priced};
    run_row(report.trace, report.topology, report.options.time, row);
    add(ours, row, "");
  }
  for (const int64_t often : {3, 10}) {
    EngineOptions sooner = *report.engine_row().engine();
    sooner.interval = std::max<int64_t>(1, sooner.interval / often);
    ReplayRow row{"engine", sooner};
    run_row(report.trace, report.topology, report.options.time, row);
    add(engine, row, "every " + grouped(sooner.interval));
  }
  for (size_t i = 0; i < report.rows.size(); ++i) {
    if (i != report.ours && i != report.engine) add(others, report.rows[i], report.rows[i].name);
  }
  Chart chart{.title = "balancedness against weights moved", .width = 460, .height = 274};
  double least = 1e18;
  double most = 1;
  double low = report.our_row().score.static_balancedness;
  for (ChartSeries* series : {&ours, &engine, &others}) {
    std::sort(series->points.begin(), series->points.end(),
              [](const ChartPoint& a, const ChartPoint& b) { return a.x < b.x; });
    for (const ChartPoint& point : series->points) {
      least = std::min(least, point.x);
      most = std::max(most, point.x);
      low = std::min(low, point.y);
    }
    if (!series->points.empty()) chart.series.push_back(std::move(*series));
  }
  chart.x = logarithmic_axis(std::min(least, most), most * 2, "moves (logarithmic)");
  chart.y = linear_axis(std::floor(low * 10) / 10, 1, "");
  chart.level = report.our_row().score.static_balancedness;
  return chart;
}

std::string all_rows(const Report& report) {
  const bool priced = report.options.price.bandwidth > 0;
  Cells head = {"",       "balancedness", "saved", "moves", "updates", "most into a GPU, an update",
                "an hour"};
  if (priced) head.insert(head.end(), {"fetching", "net"});
  std::vector<Cells> rows;
  rows.push_back({"initial placement kept",
                  format("{:.4f}", report.our_row().score.static_balancedness), "", "", "", "",
                  ""});
  if (priced) rows.back().insert(rows.back().end(), {"", ""});
  for (const ReplayRow& row : report.rows) {
    const ReplayScore& score = row.score;
    rows.push_back({row.name, format("{:.4f}", score.balancedness),
                    format("{:.1f} %", saved_part(score) * 100), grouped(score.moves),
                    grouped(score.updates), grouped(score.max_moves_per_gpu),
                    grouped(score.most_moves_in_an_hour)});
    if (priced) {
      rows.back().push_back(format("{:.3g} s", transfer_seconds(score, report.options.price)));
      rows.back().push_back(format("{:.1f} %", net_part(score, report.options) * 100));
    }
  }
  return table(head, rows);
}

std::string worst_layers(const Report& report) {
  const ReplayScore& ours = report.our_row().score;
  const ReplayScore& engine = report.engine_row().score;
  std::vector<size_t> order(ours.layer_balancedness.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return ours.layer_balancedness[a] < ours.layer_balancedness[b];
  });
  order.resize(std::min(order.size(), kWorstLayers));
  std::vector<Cells> rows;
  for (const size_t layer : order) {
    const auto imbalance = [&](const std::vector<double>& layers) {
      return format("{:.3f}", 1 / layers[layer]);
    };
    rows.push_back({std::to_string(report.topology.layer_id(static_cast<int32_t>(layer))),
                    imbalance(ours.static_layer_balancedness), imbalance(engine.layer_balancedness),
                    imbalance(ours.layer_balancedness)});
  }
  return table({"layer", "initial placement kept", report.engine_row().name, "eplbd"}, rows);
}

std::string page(const Report& report, std::span<const SlotsScore> sweep) {
  const Topology& t = report.topology;
  std::string out = kHead;
  out += "<h1>What this trace would have come to</h1>\n<p>" + escaped(report.options.trace) +
         format(
             ": {} steps of {:.4g} s, {} layers of {} experts in {} slots on {} GPUs; an update "
             "serves {:.4g} s after its decision.</p>\n",
             grouped(report.trace.steps()), report.options.time.step_seconds, t.layers,
             t.logical_experts, t.slots, t.gpus, report.options.time.apply_seconds);
  out += "<p class=\"sum\">" +
         escaped(summary_of({report.our_row(), report.engine_row()}, report.options)) + "</p>\n";
  out += "<h2>Over time</h2>\n" + picture(time_chart(report));
  out += "<h2>What was run</h2>\n" + all_rows(report) +
         "<p><small>Balancedness: mean GPU load / fullest, over steps and layers. Saved: of the "
         "slowest GPU's expert time, against the initial placement. A move: the weights of one "
         "expert of one layer, fetched by one GPU. An engine rebuilds every layer from scratch "
         "with DeepSeek's algorithm, from its window, at its interval (vLLM first after a quarter "
         "of it).";
  if (report.options.price.bandwidth > 0) {
    out +=
        " Fetching: seconds in which the GPU that gets most in an update fetches weights; net: "
        "saved, less these of the trace's seconds, if each stalled it.";
  }
  out += "</small></p>\n<h2>What moves buy</h2>\n" +
         picture(moves_chart(report), "initial placement kept");
  out += "<h2>The layers that came off worst</h2>\n<p>Imbalance of a layer, over all steps.</p>\n" +
         worst_layers(report);
  out += "<h2>What slots buy</h2>\n" + picture(slots_chart(sweep));
  return out + "</body></html>\n";
}

}  // namespace

void write_report(const ReplayOptions& options, const Config& config, const TraceFile& trace,
                  const Topology& topology, std::vector<ReplayRow> rows) {
  Report report{options, trace, topology, std::move(rows)};
  RebalancerOptions rules = rules_of(options, config);
  rules.balancer.policy = Policy::incremental;
  report.ours = find_or_run(report, is_incremental, {"incremental", rules});
  report.engine = find_or_run(report, [](const ReplayRow& row) { return row.engine() != nullptr; },
                              {"engine:vllm,pass=50ms", usual_engine()});
  const auto slots = usual_slots(topology.logical_experts, topology.gpus);
  const auto sweep = sweep_slots(trace, topology, slots,
                                 std::get<RebalancerOptions>(report.our_row().way), options.time);
  write_file(options.report, page(report, sweep));
}

}  // namespace eplbd
