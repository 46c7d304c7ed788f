// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/replay.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "config/config.h"
#include "eplbctl/errors.h"
#include "eplbctl/file.h"
#include "eplbctl/replay_rows.h"
#include "eplbctl/report.h"
#include "eplbctl/text.h"

namespace eplbd {
namespace {

using nlohmann::ordered_json;

std::string timeline_csv(const std::vector<ReplayStep>& steps, const VirtualTime& time) {
  std::string text =
      "step,seconds,imbalance,static_imbalance,verdict,version,moves,worst_gpu_moves,"
      "layers_changed,decide_seconds,half_life_seconds\n";
  for (const ReplayStep& s : steps) {
    text += format("{},{:.9g},{:.6f},{:.6f},{},{},{},{},{},{:.9f},{:.6g}\n", s.step,
                   static_cast<double>(s.step) * time.step_seconds, s.imbalance, s.imbalance_static,
                   to_string(s.verdict), s.version, s.moves, s.worst_gpu_moves, s.layers_changed,
                   s.decide_seconds, s.half_life_seconds);
  }
  return text;
}

void add_way(const ReplayRow& row, ordered_json& json) {
  if (const EngineOptions* engine = row.engine()) {
    json["engine"] = engine->name;
    json["interval"] = engine->interval;
    json["window"] = engine->window;
    if (engine->pass_seconds > 0) json["pass_seconds"] = engine->pass_seconds;
    json["policy"] = to_string(Policy::deepseek);
  } else {
    json["policy"] = to_string(std::get<RebalancerOptions>(row.way).balancer.policy);
  }
}

ordered_json to_json(const ReplayOptions& options, const Topology& topology, const ReplayRow& row) {
  const ReplayScore& score = row.score;
  const auto worst =
      std::min_element(score.layer_balancedness.begin(), score.layer_balancedness.end());
  ordered_json json;
  add_way(row, json);
  json["steps"] = score.steps;
  json["layers"] = topology.layers;
  json["logical_experts"] = topology.logical_experts;
  json["slots"] = topology.slots;
  json["gpus"] = topology.gpus;
  json["step_seconds"] = options.time.step_seconds;
  json["apply_seconds"] = options.time.apply_seconds;
  json["sources"] = options.time.sources;
  json["balancedness"] = score.balancedness;
  json["static_balancedness"] = score.static_balancedness;
  json["saved"] = saved_part(score);
  json["worst_layer"] = worst - score.layer_balancedness.begin();
  json["worst_layer_balancedness"] = *worst;
  json["moves"] = score.moves;
  json["updates"] = score.updates;
  json["layers_changed"] = score.layers_changed;
  json["max_moves_per_gpu"] = score.max_moves_per_gpu;
  json["most_moves_per_gpu_in_an_hour"] = score.most_moves_in_an_hour;
  if (options.price.bandwidth > 0) {
    json["transfer_seconds"] = transfer_seconds(score, options.price);
    json["saved_net"] = net_part(score, options);
  }
  json["decide_seconds_total"] = score.decide_seconds_total;
  json["decide_seconds_p99"] = score.decide_seconds_p99;
  for (const auto& [verdict, times] : score.verdicts) {
    json["verdicts"][std::string(to_string(verdict))] = times;
  }
  json["summary"] = summary_of(row, options);
  return json;
}

// A table on standard output, a line a row as soon as it is there.
class Table {
 public:
  Table(const ReplayOptions& options, const std::vector<ReplayRow>& rows) : options_(options) {
    for (const ReplayRow& row : rows) width_ = std::max(width_, row.name.size());
  }

  void add(const ReplayRow& row) {
    const ReplayScore& score = row.score;
    if (std::exchange(first_, false)) begin(score);
    const double worst =
        *std::min_element(score.layer_balancedness.begin(), score.layer_balancedness.end());
    std::cout << format("{:{}} {:12.4f} {:7.1f} {:12.4f} {:>9} {:>8} {:>8} {:>8} {:>8} {:8.2f}",
                        row.name, width_, score.balancedness, saved_part(score) * 100, worst,
                        grouped(score.moves), grouped(score.updates), grouped(score.layers_changed),
                        grouped(score.max_moves_per_gpu), grouped(score.most_moves_in_an_hour),
                        score.decide_seconds_p99 * 1e3);
    if (priced()) {
      std::cout << format(" {:8.3g} {:7.1f}", transfer_seconds(score, options_.price),
                          net_part(score, options_) * 100);
    }
    std::cout << std::endl;
  }

  void end(const std::vector<ReplayRow>& rows) const {
    std::cout << "\nbalancedness: mean GPU load / fullest, over steps and layers; 1 is perfect\n"
                 "saved %: of the slowest GPU's expert time, against the initial placement\n"
                 "worst layer: the lowest balancedness of one layer\n"
                 "moves: weights of one expert of one layer fetched by one GPU; layers: changed\n"
                 "max/GPU: most moves into one GPU in one update; GPU/h: in any hour\n"
                 "p99 ms: real time of a decision that 99 in 100 stay below\n";
    if (priced()) {
      std::cout << "fetch s: seconds in which the GPU that gets most in an update fetches weights\n"
                   "net %: saved, less these seconds of the trace's: if each stalled it\n";
    }
    std::cout << '\n' << summary_of(rows, options_) << '\n';
  }

 private:
  bool priced() const { return options_.price.bandwidth > 0; }
  void begin(const ReplayScore& score) const {
    std::cout << format("{:{}} {:>12} {:>7} {:>12} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}", "", width_,
                        "balancedness", "saved %", "worst layer", "moves", "updates", "layers",
                        "max/GPU", "GPU/h", "p99 ms");
    if (priced()) std::cout << format(" {:>8} {:>7}", "fetch s", "net %");
    std::cout << format("\n{:{}} {:12.4f}\n", "static", width_, score.static_balancedness);
  }

  const ReplayOptions& options_;
  size_t width_ = 6;
  bool first_ = true;
};

int run_one(const ReplayOptions& options, const Config& config, const TraceFile& trace,
            const Topology& topology) {
  ReplayRow row{"eplbd", rules_of(options, config)};
  run_row(trace, topology, options.time, row);
  if (!options.timeline.empty()) {
    write_file(options.timeline, timeline_csv(row.timeline, options.time));
  }
  if (!options.report.empty()) write_report(options, config, trace, topology, {row});
  std::cout << to_json(options, topology, row).dump(2) << '\n';
  return 0;
}

int run_compare(const ReplayOptions& options, const Config& config, const TraceFile& trace,
                const Topology& topology) {
  std::vector<ReplayRow> rows = rows_to_compare(options, config);
  Table table(options, rows);
  ordered_json list = ordered_json::array();
  for (ReplayRow& row : rows) {
    run_row(trace, topology, options.time, row);
    if (!options.json) table.add(row);
    list.push_back(to_json(options, topology, row));
    list.back()["name"] = row.name;
  }
  if (options.json) {
    std::cout << list.dump(2) << '\n';
  } else {
    table.end(rows);
  }
  if (!options.report.empty()) write_report(options, config, trace, topology, rows);
  return 0;
}

// That of the flags, else the configuration's.
Topology topology_of(const ReplayOptions& options, const Config& config, const TraceFile& trace) {
  if (options.shape.gpus > 0) {
    return topology_from(options.shape, trace.layers(), trace.experts());
  }
  const Topology& topology = config.topology;
  if (!topology.problems().empty()) {
    throw UsageError("--gpus and --slots are required, or a --config that has a topology");
  }
  if (topology.layers != trace.layers() || topology.logical_experts != trace.experts()) {
    throw UsageError(options.trace + " has " + std::to_string(trace.layers()) + " layers of " +
                     std::to_string(trace.experts()) + " experts, " + options.config + " has " +
                     std::to_string(topology.layers) + " of " +
                     std::to_string(topology.logical_experts) + ": give --gpus and --slots");
  }
  return topology;
}

}  // namespace

int run_replay(const ReplayOptions& options) {
  Config config;
  if (!options.config.empty()) config = read_config(options.config, Require::rules_only);
  const TraceFile trace(options.trace);
  const Topology topology = topology_of(options, config, trace);
  return options.compare ? run_compare(options, config, trace, topology)
                         : run_one(options, config, trace, topology);
}

}  // namespace eplbd
