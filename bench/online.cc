// The online comparison on a folder of traces: what is served, and what it costs in moves.
//   bench_online FOLDER [PICTURE.svg [GPUSxSLOTS ...]]       or EPLBD_TRACES=FOLDER
// Every FOLDER/*.npy, [steps, layers, experts], a step a second, in the shapes given (default: 32,
// 72 and 144 GPUs with 32 redundant experts, small models 8 GPUs with 8): static, DeepSeek's
// algorithm and its evolved successor rebuilding at intervals from as many steps, `incremental`
// under one configuration and under others that move less and more, and what is possible at all.
// Tables in Markdown on standard output.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/online_picture.h"
#include "bench/shapes.h"
#include "core/balance/scratch_policy.h"
#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "eplbctl/replay.h"

namespace eplbd {
namespace {

constexpr double kApplySeconds[] = {0, 3, 30};
constexpr int64_t kIntervals[] = {100, 20, 5};

struct Result {
  double balancedness = 0;
  int64_t moves = 0;
  int64_t updates = 0;
  double p99_seconds = 0;
};

// What large models are served on: four nodes, a rack, and two; a node for small ones.
std::vector<Shape> usual_shapes(int32_t experts) {
  if (experts < 128) return {{experts + 8, 8}};
  return {{experts + 32, 32}, {experts + 32, 72}, {experts + 32, 144}};
}

Shape parse_shape(const std::string& text) {
  Shape shape;
  int used = 0;
  const int read = std::sscanf(text.c_str(), "%dx%d%n", &shape.gpus, &shape.slots, &used);
  if (read != 2 || static_cast<size_t>(used) != text.size()) {
    throw std::runtime_error("\"" + text + "\" is not GPUSxSLOTS, as 72x288");
  }
  return shape;
}

// In the shapes in which the trace's model can be served.
std::vector<Topology> topologies_of(const TraceFile& trace, const std::vector<Shape>& given) {
  std::vector<Topology> topologies;
  for (const Shape& shape : given.empty() ? usual_shapes(trace.experts()) : given) {
    Topology topology = topology_of(trace.layers(), trace.experts(), shape.slots, shape.gpus);
    if (topology.problems().empty()) topologies.push_back(topology);
  }
  return topologies;
}

// `most_moves` of the whole trace, which must be shorter than an hour; 0: any.
RebalancerOptions rules_of(double imbalance, double settle, double min_gain, int64_t most_moves) {
  RebalancerOptions rules;
  rules.trigger.imbalance = imbalance;
  rules.trigger.settle = settle;
  rules.trigger.min_gain = min_gain;
  rules.trigger.cooldown = std::chrono::seconds(1);
  rules.trigger.min_tokens_per_gpu_step = 0;
  rules.limits.updates_per_hour = 0;
  rules.limits.moves_per_hour = most_moves;
  return rules;
}

RebalancerOptions the_one() { return rules_of(1.05, 1.03, 0.003, 0); }

Result run_ours(const TraceFile& trace, const Topology& topology, const RebalancerOptions& rules,
                double apply_seconds) {
  const ReplayScore score =
      replay(trace, topology, rules, {1, apply_seconds, 1}, [](const auto&) {});
  return {score.balancedness, score.moves, score.updates, score.decide_seconds_p99};
}

// Sums over layers of mean and of max GPU load.
struct Served {
  double means = 0;
  double peaks = 0;
  void add(const Served& other) {
    means += other.means;
    peaks += other.peaks;
  }
  double balancedness() const { return peaks > 0 ? means / peaks : 1; }
};

Served serve(const Topology& topology, const Placement& placement, std::span<const double> loads) {
  Served served;
  const Imbalance imbalance = imbalance_of(topology, placement, loads);
  for (const double mean : imbalance.means) served.means += mean;
  for (const double peak : imbalance.peaks) served.peaks += peak;
  return served;
}

Placement rebuilt(const Topology& topology, const ScratchPolicy& policy,
                  std::span<const double> loads) {
  return policy.place(topology, loads, {}).placement;
}

// Rebuilds everything every so many steps from the load of as many; 0: never.
Result run_interval(const TraceFile& trace, const Topology& topology, Policy name, int64_t every,
                    double apply_seconds) {
  const auto policy = make_scratch_policy({name, Hierarchical::no, 0});
  Placement serving = Placement::initial(topology);
  Placement next = serving;
  int64_t serves_from = -1;
  std::vector<double> window(trace.cells());
  std::vector<double> counts(trace.cells());
  Served served;
  Result result;
  for (int64_t step = 0; step < trace.steps(); ++step) {
    if (step == serves_from) serving = next;
    trace.read_step(step, counts);
    served.add(serve(topology, serving, counts));
    for (size_t i = 0; i < counts.size(); ++i) window[i] += counts[i];
    if (every == 0 || (step + 1) % every != 0) continue;
    if (step + 1 >= serves_from) {  // else: still being applied
      if (step + 1 == serves_from) serving = next;
      next = keep_slots(topology, serving, rebuilt(topology, *policy, window));
      const int64_t moves = count_moves(topology, serving, next).total;
      result.moves += moves;
      result.updates += moves > 0;
      serves_from = step + 1 + static_cast<int64_t>(std::ceil(apply_seconds));
    }
    std::fill(window.begin(), window.end(), 0.0);
  }
  result.balancedness = served.balancedness();
  return result;
}

// What is possible at all: a placement from scratch for every step, from the first that a decision
// can serve (it needs the counts of one step, and the time to apply it). Planned from the step's
// own counts: nobody can do better. Or from the kSeen steps before and after it, without itself:
// where the load stands, but not what chance does.
class Clairvoyant {
 public:
  Clairvoyant(const TraceFile& trace, const Topology& topology, int64_t around) {
    const auto policy = make_scratch_policy({Policy::joint, Hierarchical::no, 0});
    std::vector<double> counts(trace.cells());
    std::vector<double> other(trace.cells());
    std::vector<double> known(trace.cells());
    for (int64_t step = 0; step < trace.steps(); ++step) {
      trace.read_step(step, counts);
      known = counts;
      if (around > 0) {
        std::fill(known.begin(), known.end(), 0.0);
        const int64_t last = std::min(step + around, trace.steps() - 1);
        for (int64_t near = std::max<int64_t>(step - around, 0); near <= last; ++near) {
          if (near == step) continue;
          trace.read_step(near, other);
          for (size_t i = 0; i < known.size(); ++i) known[i] += other[i];
        }
      }
      best_.push_back(serve(topology, rebuilt(topology, *policy, known), counts));
      kept_.push_back(serve(topology, Placement::initial(topology), counts));
    }
  }

  double balancedness(double apply_seconds) const {
    const auto first = static_cast<size_t>(1 + std::ceil(apply_seconds));
    Served served;
    for (size_t step = 0; step < best_.size(); ++step) {
      served.add(step < first ? kept_[step] : best_[step]);
    }
    return served.balancedness();
  }

 private:
  std::vector<Served> best_;  // [steps]
  std::vector<Served> kept_;  // [steps] under the initial placement
};

// One rebuild from the load of the whole trace, in seconds; the median of some.
double rebuild_seconds(const TraceFile& trace, const Topology& topology) {
  const auto policy = make_scratch_policy({Policy::deepseek, Hierarchical::no, 0});
  std::vector<double> sum(trace.cells());
  std::vector<double> counts(trace.cells());
  for (int64_t step = 0; step < trace.steps(); ++step) {
    trace.read_step(step, counts);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += counts[i];
  }
  std::vector<double> seconds(21);
  for (double& one : seconds) {
    const auto start = std::chrono::steady_clock::now();
    rebuilt(topology, *policy, sum);
    one = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  std::nth_element(seconds.begin(), seconds.begin() + 10, seconds.end());
  return seconds[10];
}

// A table of balancedness with moves in parentheses, a column an apply time.
class ApplyTable {
 public:
  explicit ApplyTable(const std::string& title) {
    std::printf("\n### %s\n\n| policy |", title.c_str());
    for (const double seconds : kApplySeconds) std::printf(" applied after %g s |", seconds);
    std::printf("\n|---|--:|--:|--:|\n");
  }
  void begin(const std::string& name) { std::printf("| %s |", name.c_str()); }
  void cell(double balancedness, std::optional<int64_t> moves = {}) {
    std::printf(" %.4f", balancedness);
    if (moves) std::printf(" (%lld)", static_cast<long long>(*moves));
    std::printf(" |");
  }
  void end() {
    std::printf("\n");
    std::fflush(stdout);
  }
};

// The peers, a series each, with no apply time.
std::vector<Series> compare_peers(const TraceFile& trace, const Topology& topology,
                                  ApplyTable& table) {
  std::vector<Series> all;
  for (const Policy policy : {Policy::deepseek, Policy::evolved}) {
    Series series{std::string(to_string(policy)), false, {}};
    for (const int64_t every : kIntervals) {
      const std::string label = "every " + std::to_string(every);
      table.begin(series.name + " " + label);
      for (const double seconds : kApplySeconds) {
        const Result result = run_interval(trace, topology, policy, every, seconds);
        table.cell(result.balancedness, result.moves);
        // The two lie close: the names of one do for both.
        if (seconds > 0) continue;
        series.points.push_back(
            {policy == Policy::deepseek ? label : "", result.balancedness, result.moves});
      }
      table.end();
    }
    all.push_back(std::move(series));
  }
  return all;
}

// Ours at many prices of a move, by moves. The first: moves are free.
Series run_ladder(const TraceFile& trace, const Topology& topology, const Result& one) {
  Series series{"eplbd", true, {{"one configuration", one.balancedness, one.moves}}};
  struct Step {
    double imbalance, settle, min_gain, part;  // of the moves of the one configuration; 0: any
  };
  for (const Step& step :
       {Step{1.01, 1.0, 0, 0}, Step{1.02, 1.01, 0.0001, 0}, Step{1.02, 1.01, 0.0003, 0},
        Step{1.05, 1.03, 0.001, 0}, Step{1.05, 1.03, 0.002, 0}, Step{1.05, 1.03, 0.006, 0},
        Step{1.1, 1.05, 0.01, 0}, Step{1.1, 1.05, 0.02, 0}, Step{1.1, 1.05, 0.02, 0.5},
        Step{1.2, 1.1, 0.03, 0}, Step{1.2, 1.1, 0.03, 0.25}}) {
    const auto most = static_cast<int64_t>(step.part * static_cast<double>(one.moves));
    const Result result =
        run_ours(trace, topology, rules_of(step.imbalance, step.settle, step.min_gain, most), 0);
    series.points.push_back({"", result.balancedness, result.moves});
  }
  return series;
}

// The best of a series with no more moves than that.
std::optional<Series::Point> best_within(const std::vector<Series>& all, bool ours, double moves) {
  std::optional<Series::Point> best;
  for (const Series& series : all) {
    for (const auto& point : series.points) {
      if (series.ours != ours || static_cast<double>(point.moves) > moves) continue;
      if (!best || point.balancedness > best->balancedness) best = point;
    }
  }
  return best;
}

void print_frontier(const std::vector<Series>& all, int64_t moves) {
  std::printf("\n| moves at most | eplbd | best peer |\n|--:|--:|--:|\n");
  const auto cell = [&](bool ours, double most) {
    const auto best = best_within(all, ours, most);
    if (!best) return std::printf(" |");
    return std::printf(" %.4f (%lld) |", best->balancedness, static_cast<long long>(best->moves));
  };
  for (const double part : {0.25, 0.5, 1.0, 2.0, 4.0, 1e9}) {
    const double most = part * static_cast<double>(moves);
    std::printf("| %s |", part > 4 ? "any" : std::to_string(std::llround(most)).c_str());
    cell(true, most);
    cell(false, most);
    std::printf("\n");
  }
  std::fflush(stdout);
}

void compare(const std::string& name, const TraceFile& trace, const Topology& topology,
             OnlinePicture& picture) {
  ApplyTable table(name + ": " + std::to_string(topology.layers) + " layers, " +
                   std::to_string(topology.logical_experts) + " experts, " +
                   std::to_string(topology.slots) + " slots, " + std::to_string(topology.gpus) +
                   " GPUs");
  table.begin("static");
  const Result kept = run_interval(trace, topology, Policy::deepseek, 0, 0);
  for ([[maybe_unused]] const double seconds : kApplySeconds) table.cell(kept.balancedness, 0);
  table.end();
  std::vector<Series> all = compare_peers(trace, topology, table);
  table.begin("**eplbd**, one configuration");
  std::vector<Result> ours;
  for (const double seconds : kApplySeconds) {
    ours.push_back(run_ours(trace, topology, the_one(), seconds));
    table.cell(ours.back().balancedness, ours.back().moves);
  }
  table.end();
  double limit = 1;
  for (const int64_t around : {5, 0}) {
    const Clairvoyant clairvoyant(trace, topology, around);
    table.begin(around > 0 ? "*the 5 steps before and after known*" : "*own counts known*");
    for (const double seconds : kApplySeconds) table.cell(clairvoyant.balancedness(seconds));
    table.end();
    limit = clairvoyant.balancedness(0);
  }
  all.push_back(run_ladder(trace, topology, ours.front()));
  print_frontier(all, ours.front().moves);
  auto& points = all.back().points;
  std::sort(points.begin(), points.end(),
            [](const auto& a, const auto& b) { return a.moves < b.moves; });
  picture.add(name + ", " + std::to_string(topology.gpus) + " GPUs", all, limit);
  const double rebuild = rebuild_seconds(trace, topology);
  std::printf("\nDecide p99 %.2f ms: %.1f times one `deepseek` rebuild (%.2f ms).\n",
              ours.front().p99_seconds * 1e3, ours.front().p99_seconds / rebuild, rebuild * 1e3);
  std::fflush(stdout);
}

int run(int count, char** arguments) {
  const char* const named = std::getenv("EPLBD_TRACES");
  const std::string folder = count > 1 ? arguments[1] : named ? named : "";
  if (folder.empty()) {
    std::cout << "No traces: give a folder of .npy files, or set EPLBD_TRACES.\n";
    return 0;
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".npy") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<Shape> shapes;
  for (int i = 3; i < count; ++i) shapes.push_back(parse_shape(arguments[i]));
  OnlinePicture picture;
  for (const auto& file : files) {
    const TraceFile trace(file.string());
    const std::vector<Topology> topologies = topologies_of(trace, shapes);
    if (trace.steps() < 2 || topologies.empty()) continue;  // a load, not a trace
    picture.begin_row();
    for (const Topology& topology : topologies) {
      compare(file.stem().string(), trace, topology, picture);
    }
  }
  if (count > 2) picture.write(arguments[2]);
  return 0;
}

}  // namespace
}  // namespace eplbd

int main(int count, char** arguments) {
  try {
    return eplbd::run(count, arguments);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
