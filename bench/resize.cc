// What it costs when the group changes while it is served: it grows and shrinks, a GPU is drained
// and restored, GPUs are of unlike speed.
//   bench_resize [TRACE]
// The loads are a trace's, [steps, layers, experts], a step a second; without one, drawn for
// DeepSeek-V3 (58 layers, 256 experts). Each change comes after a minute; it is decided in one
// update, and judged on the load that it was planned for, as is `joint` from scratch. "Least" are
// the moves that no placement can do without: each slot that is to be filled, or each expert that
// lies nowhere any more; beside it what is decided where limits leave nothing beyond what must be.
// Tables in Markdown on standard output.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "bench/shapes.h"
#include "core/balance/policies.h"
#include "core/decide/rebalancer.h"
#include "core/decide/resize.h"
#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "eplbctl/trace_file.h"

namespace eplbd {
namespace {

constexpr int64_t kSettledAfter = 60;  // steps
constexpr int32_t kTimes = 5;          // that a decision is timed

Now at(double seconds) { return {TimePoint(from_seconds(1000 + seconds)), 1e9 + seconds}; }

// Popular experts, as routing shows, that stay popular.
class Loads {
 public:
  explicit Loads(const std::string& file) {
    if (!file.empty()) trace_.emplace(file);
  }
  int32_t layers() const { return trace_ ? trace_->layers() : 58; }
  int32_t experts() const { return trace_ ? trace_->experts() : 256; }

  std::vector<uint32_t> step(int64_t number) {
    std::vector<double> loads(static_cast<size_t>(layers()) * experts());
    std::vector<uint32_t> counts(loads.size());
    if (trace_) {
      trace_->read_counts(number % trace_->steps(), loads, counts);
      return counts;
    }
    std::mt19937 same(1);
    std::lognormal_distribution<double> popularity(6, 0.8);
    for (uint32_t& count : counts) {
      count = std::poisson_distribution<uint32_t>(popularity(same))(noise_);
    }
    return counts;
  }

 private:
  std::optional<TraceFile> trace_;
  std::mt19937 noise_{2};
};

// A group that does at once what is decided.
class Served {
 public:
  Served(Loads& loads, const Topology& topology)
      : loads_(loads), rebalancer_(topology, rules(), at(0)) {
    report({}, rebalancer_.group().in_force());
    run(kSettledAfter);
  }

  void run(int64_t steps) {
    for (const int64_t end = steps_ + steps; steps_ < end;) {
      const std::vector<uint32_t> counts = loads_.step(steps_++);
      CountsReport report;
      report.source = "dp0";
      report.epoch = 1;
      report.sequence = counts_sent_++;
      report.since = 1e9;
      report.ts = at(now()).unix_seconds;
      report.steps = 10;
      report.running = rebalancer_.group().running();
      report.counts = PackedArray<uint32_t>(std::span<const uint32_t>(counts));
      rebalancer_.ingest(report, at(now()));
      rebalancer_.advance(at(now()));
      apply(rebalancer_.decide(at(now())));
    }
  }

  void report(PlacementId id, const Placement& map, std::optional<Shape> shape = {}) {
    StateReport report;
    report.source = "head";
    report.epoch = 1;
    report.sequence = states_sent_++;
    report.running = id;
    report.inactive_gpus = true;
    report.set_map(shape ? resized(rebalancer_.configured(), *shape) : rebalancer_.topology(), map);
    rebalancer_.observe(report, at(now()));
  }

  void apply(const Decision& decision) {
    if (!rebalancer_.record(decision) || decision.verdict != Verdict::update) return;
    moves_ += decision.moves;
    report(decision.update->id, decision.update->placement);
  }

  Rebalancer& rebalancer() { return rebalancer_; }
  double now() const { return static_cast<double>(steps_); }
  int64_t moves() const { return moves_; }

 private:
  static RebalancerOptions rules() {
    RebalancerOptions rules;
    rules.trigger.min_tokens_per_gpu_step = 0;
    return rules;
  }

  Loads& loads_;
  Rebalancer rebalancer_;
  int64_t steps_ = 0;
  uint64_t counts_sent_ = 0;
  uint64_t states_sent_ = 0;
  int64_t moves_ = 0;
};

int64_t least_moves(const Topology& topology, const Placement& base,
                    std::span<const int32_t> down) {
  int64_t least = 0;
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    std::vector<int32_t> replicas(topology.logical_experts);
    int64_t to_fill = 0;
    for (int32_t slot = 0; slot < topology.slots; ++slot) {
      if (std::ranges::binary_search(down, topology.gpu_of(slot))) continue;
      const int32_t expert = base.layer(layer)[slot];
      if (expert == kNoExpert) ++to_fill;
      if (expert != kNoExpert) ++replicas[expert];
    }
    least += std::max<int64_t>(to_fill, std::ranges::count(replicas, 0));
  }
  return least;
}

void print_header() {
  std::printf(
      "| change | moves | decided in ms | balancedness before | after | least | moves under "
      "limits | balancedness | `joint` from scratch | its moves |\n"
      "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
}

// The same, where limits leave nothing beyond what must be.
template <typename Plan>
Decision plan_least(Served& served, Plan plan) {
  Rebalancer& rebalancer = served.rebalancer();
  const RebalancerOptions usual = rebalancer.options();
  RebalancerOptions bounded = usual;
  bounded.limits.max_moves = 1;
  rebalancer.set_options(bounded, at(served.now()));
  Decision least = plan();
  rebalancer.set_options(usual, at(served.now()));
  return least;
}

// Decides it, several times over for the time that it takes, and carries it out.
template <typename Plan>
void print_change(const std::string& name, Served& served, Plan plan) {
  Decision decision;
  std::vector<double> milliseconds;
  for (int32_t i = 0; i < kTimes; ++i) {
    const auto start = std::chrono::steady_clock::now();
    decision = plan();
    milliseconds.push_back(to_seconds(std::chrono::steady_clock::now() - start) * 1e3);
  }
  std::ranges::sort(milliseconds);
  const Decision least = plan_least(served, plan);
  if (!decision.update || !least.update) throw std::runtime_error(name + ": " + decision.detail);
  const Rebalancer& rebalancer = served.rebalancer();
  const Placement base =
      decision.carried ? decision.carried->placement : rebalancer.group().in_force();
  served.apply(decision);

  const Topology& topology = rebalancer.topology();
  const std::vector<double> loads = rebalancer.loads(at(served.now()));
  const std::vector<int32_t>& down = rebalancer.gpus_down();
  const auto balancedness = [&](const Placement& placement) {
    return 1 / imbalance_of(topology, placement, loads, down).whole_model;
  };
  const Placement joint = make_online(make_joint({}))
                              ->propose({.topology = topology,
                                         .in_force = base,
                                         .outlook = {.loads = loads},
                                         .gpus_down = down})
                              .placement;
  std::printf("| %s | %lld | %.1f | %.3f | %.3f | %lld | %lld | %.3f | %.3f | %lld |\n",
              name.c_str(), static_cast<long long>(decision.moves), milliseconds[kTimes / 2],
              1 / decision.imbalance, balancedness(decision.update->placement),
              static_cast<long long>(least_moves(topology, base, down)),
              static_cast<long long>(least.moves), balancedness(least.update->placement),
              balancedness(joint),
              static_cast<long long>(count_moves(topology, base, joint).total));
  std::fflush(stdout);
  served.run(kSettledAfter);
}

void resize(Served& served, Shape shape) {
  Rebalancer& rebalancer = served.rebalancer();
  const Topology before = rebalancer.topology();
  const Topology after = resized(rebalancer.configured(), shape);
  served.report({}, carry_over(before, rebalancer.group().in_force(), after), shape);
  print_change(std::to_string(before.gpus) + " x " + std::to_string(before.slots_per_gpu()) +
                   " to " + std::to_string(after.gpus) + " x " +
                   std::to_string(after.slots_per_gpu()),
               served, [&] { return rebalancer.plan_resize(shape, at(served.now())); });
}

void drain_and_restore(Loads& loads, const Topology& topology) {
  Served served(loads, topology);
  Rebalancer& rebalancer = served.rebalancer();
  const auto order = [&](const char* what, std::vector<int32_t> down) {
    if (const auto why = rebalancer.set_gpus_down(std::move(down), {})) {
      throw std::runtime_error(*why);
    }
    print_change(std::to_string(topology.gpus) + " x " + std::to_string(topology.slots_per_gpu()) +
                     ", a GPU " + what,
                 served, [&] { return rebalancer.decide(at(served.now())); });
  };
  order("drained", {topology.gpus / 2});
  order("restored", {});
}

double balancedness_by_speed(const Topology& real, Served& served) {
  const Rebalancer& rebalancer = served.rebalancer();
  return 1 / imbalance_of(real, rebalancer.group().in_force(), rebalancer.loads(at(served.now())))
                 .whole_model;
}

void print_speeds(Loads& loads, Topology topology) {
  Served unweighted(loads, topology);
  for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) {
    topology.gpu_speeds.push_back(gpu % 2 == 0 ? 1.0 : 0.7);
  }
  Served weighted(loads, topology);
  std::printf("\n| 32 x 9, speeds 1.0 and 0.7 | balancedness by speed | moves |\n|---|--:|--:|\n");
  std::printf("| unweighted | %.3f | %lld |\n", balancedness_by_speed(topology, unweighted),
              static_cast<long long>(unweighted.moves()));
  std::printf("| by speed | %.3f | %lld |\n", balancedness_by_speed(topology, weighted),
              static_cast<long long>(weighted.moves()));
}

int run(const std::string& file) {
  Loads loads(file);
  const auto topology_with = [&](int32_t slots, int32_t gpus) {
    return topology_of(loads.layers(), loads.experts(), slots, gpus);
  };
  if (loads.experts() != 256) throw std::runtime_error("the shapes are for 256 experts");
  print_header();
  Served served(loads, topology_with(288, 32));
  resize(served, {.slots = 360, .gpus = 40});
  resize(served, {.slots = 288, .gpus = 24});
  drain_and_restore(loads, topology_with(288, 32));
  drain_and_restore(loads, topology_with(288, 72));
  print_speeds(loads, topology_with(288, 32));
  return 0;
}

}  // namespace
}  // namespace eplbd

int main(int count, char** arguments) {
  try {
    return eplbd::run(count > 1 ? arguments[1] : "");
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
