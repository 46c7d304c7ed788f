// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/replay.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "config/config.h"
#include "eplbctl/errors.h"
#include "eplbctl/file.h"
#include "eplbctl/terminal.h"

namespace eplbd {
namespace {

using nlohmann::ordered_json;

constexpr Policy kPolicies[] = {Policy::deepseek, Policy::evolved, Policy::joint,
                                Policy::incremental};

// One way to decide.
struct Rules {
  std::string name;
  RebalancerOptions options;
};

// The configuration's, or the defaults, with the flags over them.
RebalancerOptions rules_of(const ReplayOptions& options, const Config& config) {
  RebalancerOptions rules = config.rebalancer;
  rules.mode = Mode::active;  // what it would do is the question
  if (options.policy) rules.balancer.policy = *options.policy;
  if (options.hierarchical) rules.balancer.hierarchical = *options.hierarchical;
  if (options.seed) rules.balancer.seed = *options.seed;
  return rules;
}

std::vector<Rules> rules_to_compare(const ReplayOptions& options, const Config& config) {
  std::vector<Rules> all;
  const auto add_policy = [&](std::string name, Policy policy) {
    all.push_back({std::move(name), rules_of(options, config)});
    all.back().options.balancer.policy = policy;
  };
  for (const std::string& name : options.compared) {
    if (const auto policy = from_name<Policy>(name)) {
      add_policy(name, *policy);
    } else {
      all.push_back({name, rules_of(options, read_config(name, Require::rules_only))});
    }
  }
  if (!all.empty()) return all;
  for (const Policy policy : kPolicies) add_policy(std::string(to_string(policy)), policy);
  return all;
}

// On standard error, when that is a terminal.
class Progress {
 public:
  Progress(std::string name, int64_t steps) : name_(std::move(name)), steps_(steps) {}
  ~Progress() {
    if (shown_) std::cerr << "\r\x1b[K" << std::flush;
  }
  void done(int64_t step) {
    const auto now = std::chrono::steady_clock::now();
    if (!terminal_ || now < next_) return;
    next_ = now + std::chrono::milliseconds(100);
    const double part = static_cast<double>(step + 1) / static_cast<double>(steps_);
    constexpr int kColumns = 40;
    std::fprintf(stderr, "\r\x1b[K%-12s %s %3.0f%%", name_.c_str(), bar(part, kColumns).c_str(),
                 part * 100);
    shown_ = true;
  }

 private:
  const std::string name_;
  const int64_t steps_;
  const bool terminal_ = is_terminal(STDERR_FILENO);
  bool shown_ = false;
  std::chrono::steady_clock::time_point next_ =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
};

class Timeline {
 public:
  explicit Timeline(const ReplayOptions& options) : options_(options) {
    text_ =
        "step,seconds,imbalance,static_imbalance,verdict,version,moves,worst_gpu_moves,"
        "layers_changed,decide_seconds,half_life_seconds\n";
  }
  void add(const ReplayStep& s) {
    char line[256];
    std::snprintf(line, sizeof(line), "%lld,%.9g,%.6f,%.6f,%s,%llu,%lld,%lld,%lld,%.9f,%.6g\n",
                  static_cast<long long>(s.step),
                  static_cast<double>(s.step) * options_.time.step_seconds, s.imbalance,
                  s.imbalance_static, std::string(to_string(s.verdict)).c_str(),
                  static_cast<unsigned long long>(s.version), static_cast<long long>(s.moves),
                  static_cast<long long>(s.worst_gpu_moves),
                  static_cast<long long>(s.layers_changed), s.decide_seconds, s.half_life_seconds);
    text_ += line;
  }
  void write() const {
    if (!options_.timeline.empty()) write_file(options_.timeline, text_);
  }

 private:
  const ReplayOptions& options_;
  std::string text_;
};

ordered_json to_json(const ReplayOptions& options, const Topology& topology, const Rules& rules,
                     const ReplayScore& score) {
  const auto worst =
      std::min_element(score.layer_balancedness.begin(), score.layer_balancedness.end());
  ordered_json json;
  json["policy"] = to_string(rules.options.balancer.policy);
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
  json["worst_layer"] = worst - score.layer_balancedness.begin();
  json["worst_layer_balancedness"] = *worst;
  json["moves"] = score.moves;
  json["updates"] = score.updates;
  json["layers_changed"] = score.layers_changed;
  json["max_moves_per_gpu"] = score.max_moves_per_gpu;
  json["decide_seconds_total"] = score.decide_seconds_total;
  json["decide_seconds_p99"] = score.decide_seconds_p99;
  for (const auto& [verdict, times] : score.verdicts) {
    json["verdicts"][std::string(to_string(verdict))] = times;
  }
  return json;
}

int run_one(const ReplayOptions& options, const Config& config, const TraceFile& trace,
            const Topology& topology) {
  const Rules rules{"replay", rules_of(options, config)};
  Timeline timeline(options);
  ReplayScore score;
  {
    Progress progress(rules.name, trace.steps());
    score = replay(trace, topology, rules.options, options.time, [&](const ReplayStep& step) {
      if (!options.timeline.empty()) timeline.add(step);
      progress.done(step.step);
    });
  }
  timeline.write();
  std::cout << to_json(options, topology, rules, score).dump(2) << '\n';
  return 0;
}

int run_compare(const ReplayOptions& options, const Config& config, const TraceFile& trace,
                const Topology& topology) {
  const std::vector<Rules> all = rules_to_compare(options, config);
  size_t width = 6;
  for (const Rules& rules : all) width = std::max(width, rules.name.size());
  const int name = static_cast<int>(width);
  ordered_json list = ordered_json::array();
  bool first = true;
  for (const Rules& rules : all) {
    ReplayScore score;
    {
      Progress progress(rules.name, trace.steps());
      score = replay(trace, topology, rules.options, options.time,
                     [&](const ReplayStep& step) { progress.done(step.step); });
    }
    ordered_json json = to_json(options, topology, rules, score);
    json["name"] = rules.name;
    list.push_back(std::move(json));
    if (options.json) continue;
    if (std::exchange(first, false)) {
      std::printf("%-*s %12s %12s %9s %8s %8s %9s %10s %10s\n", name, "", "balancedness",
                  "worst layer", "moves", "updates", "layers", "max/GPU", "p99 ms", "total s");
      std::printf("%-*s %12.4f\n", name, "static", score.static_balancedness);
    }
    const double worst =
        *std::min_element(score.layer_balancedness.begin(), score.layer_balancedness.end());
    std::printf("%-*s %12.4f %12.4f %9lld %8lld %8lld %9lld %10.2f %10.2f\n", name,
                rules.name.c_str(), score.balancedness, worst, static_cast<long long>(score.moves),
                static_cast<long long>(score.updates), static_cast<long long>(score.layers_changed),
                static_cast<long long>(score.max_moves_per_gpu), score.decide_seconds_p99 * 1e3,
                score.decide_seconds_total);
    std::fflush(stdout);
  }
  if (options.json) std::cout << list.dump(2) << '\n';
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
