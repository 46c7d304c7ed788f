// The online comparison on a folder of traces: what is served, and what it costs in moves.
//   bench_online FOLDER [PICTURE.svg]       or EPLBD_TRACES=FOLDER
// Every FOLDER/*.npy, [steps, layers, experts], a step a second: static, DeepSeek's algorithm and
// its evolved successor rebuilding at intervals from as many steps, and `incremental` under one
// configuration and under others that move less and more. Tables in Markdown on standard output.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "core/balancer.h"
#include "core/imbalance.h"
#include "core/migration.h"
#include "eplbctl/replay.h"

namespace eplbd {
namespace {

struct Point {
  std::string name;
  bool ours = false;
  double apply_seconds = 0;
  double balancedness = 0;
  int64_t moves = 0;
  int64_t updates = 0;
  double p99_seconds = 0;
};

// The shapes that traces of these models are served in; a fleet of one node for small models.
Topology shape_of(const TraceFile& trace) {
  Topology topology;
  topology.layers = trace.layers();
  topology.logical_experts = trace.experts();
  const bool large = topology.logical_experts >= 128;
  topology.gpus = large ? 32 : 8;
  topology.slots = topology.logical_experts + (large ? 32 : 8);
  return topology;
}

RebalancerOptions rules_of(double imbalance, double settle, double min_gain) {
  RebalancerOptions rules;
  rules.trigger.imbalance = imbalance;
  rules.trigger.settle = settle;
  rules.trigger.min_gain = min_gain;
  rules.trigger.cooldown = std::chrono::seconds(1);
  rules.trigger.min_tokens_per_gpu_step = 0;
  rules.limits.updates_per_hour = 0;
  return rules;
}

Point run_ours(const TraceFile& trace, const Topology& topology, const std::string& name,
               const RebalancerOptions& rules, double apply_seconds) {
  const ReplayScore score = replay(trace, topology, rules, 1, apply_seconds, [](const auto&) {});
  return {name,        true,          apply_seconds,           score.balancedness,
          score.moves, score.updates, score.decide_seconds_p99};
}

// Sums of mean and of max GPU load.
struct Served {
  double means = 0;
  double peaks = 0;
  void add(const Topology& topology, const Placement& placement, std::span<const double> loads) {
    const auto gpus = gpu_loads(topology, placement, loads);
    for (size_t first = 0; first < gpus.size(); first += topology.gpus) {
      const auto begin = gpus.begin() + static_cast<ptrdiff_t>(first);
      double sum = 0;
      for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) sum += begin[gpu];
      means += sum / topology.gpus;
      peaks += *std::max_element(begin, begin + topology.gpus);
    }
  }
};

// Rebuilds everything every so many steps from the load of as many; 0: never.
Point run_interval(const TraceFile& trace, const Topology& topology, Policy policy, int64_t every,
                   double apply_seconds) {
  const auto balancer = make_balancer({policy, Hierarchical::no, 0});
  Placement serving = Placement::initial(topology);
  Placement next = serving;
  int64_t serves_from = -1;
  std::vector<double> window(trace.cells());
  std::vector<double> counts(trace.cells());
  Served served;
  Point point{
      every == 0 ? "static" : std::string(to_string(policy)) + " every " + std::to_string(every),
      false, apply_seconds};
  for (int64_t step = 0; step < trace.steps(); ++step) {
    if (step == serves_from) serving = next;
    trace.read_step(step, counts);
    served.add(topology, serving, counts);
    for (size_t i = 0; i < counts.size(); ++i) window[i] += counts[i];
    if (every == 0 || (step + 1) % every != 0) continue;
    if (step + 1 >= serves_from) {  // else: still being applied
      const BalanceRequest request{.topology = topology,
                                   .loads = window,
                                   .gpus_down = {},
                                   .budget = {},
                                   .keep_searching = {}};
      next = keep_slots(topology, serving,
                        Placement(topology, balancer->place(request).slot_to_expert));
      const int64_t moves = count_moves(topology, serving, next).total;
      point.moves += moves;
      point.updates += moves > 0;
      serves_from = step + 1 + static_cast<int64_t>(std::ceil(apply_seconds));
    }
    std::fill(window.begin(), window.end(), 0.0);
  }
  point.balancedness = served.peaks > 0 ? served.means / served.peaks : 1;
  return point;
}

std::vector<Point> compare(const TraceFile& trace, const Topology& topology) {
  std::vector<Point> points{run_interval(trace, topology, Policy::deepseek, 0, 0)};
  for (const Policy policy : {Policy::deepseek, Policy::evolved}) {
    for (const int64_t every : {100, 20, 5}) {
      points.push_back(run_interval(trace, topology, policy, every, 0));
    }
  }
  const RebalancerOptions one = rules_of(1.05, 1.03, 0.003);
  points.push_back(run_ours(trace, topology, "incremental", one, 0));
  struct Variant {
    const char* name;
    double imbalance, settle, min_gain;
  };
  for (const Variant& v :
       {Variant{"incremental, 1.02", 1.02, 1.01, 0.001},
        Variant{"incremental, 1.1", 1.1, 1.05, 0.01}, Variant{"incremental, 1.2", 1.2, 1.1, 0.03},
        Variant{"incremental, 1.4", 1.4, 1.2, 0.1}}) {
    const auto rules = rules_of(v.imbalance, v.settle, v.min_gain);
    points.push_back(run_ours(trace, topology, v.name, rules, 0));
  }
  for (const double seconds : {3.0, 30.0}) {
    points.push_back(run_interval(trace, topology, Policy::deepseek, 20, seconds));
    points.push_back(run_interval(trace, topology, Policy::evolved, 20, seconds));
    points.push_back(run_ours(trace, topology, "incremental", one, seconds));
  }
  return points;
}

void print_table(const std::string& name, const Topology& topology,
                 const std::vector<Point>& points) {
  std::printf("\n### %s: %d layers, %d experts, %d slots, %d GPUs\n\n", name.c_str(),
              topology.layers, topology.logical_experts, topology.slots, topology.gpus);
  std::printf("| policy | applied after, s | balancedness | moves | updates | decide p99, ms |\n");
  std::printf("|---|--:|--:|--:|--:|--:|\n");
  for (const Point& p : points) {
    std::printf("| %s | %g | %.4f | %lld | %lld | ", p.name.c_str(), p.apply_seconds,
                p.balancedness, static_cast<long long>(p.moves), static_cast<long long>(p.updates));
    if (p.ours) {
      std::printf("%.2f |\n", p.p99_seconds * 1e3);
    } else {
      std::printf(" |\n");
    }
  }
  std::fflush(stdout);
}

// One panel a trace: balancedness against moves (logarithmic), one point a policy.
class Picture {
 public:
  void add(const std::string& name, const std::vector<Point>& points) {
    const double left = 60 + kWidth * panels_++;
    double most = 10;
    for (const Point& p : points) most = std::max(most, static_cast<double>(p.moves));
    const auto x = [&](double moves) {
      return left + (kWidth - 130) * std::log10(std::max(moves, 1.0)) / std::log10(most);
    };
    const auto y = [](double balancedness) {
      return 40 + (kHeight - 90) * (1 - balancedness) / 0.6;
    };
    svg_ << "<text x='" << left << "' y='22' font-weight='bold'>" << name << "</text>\n";
    for (int tenth = 4; tenth <= 10; ++tenth) {
      svg_ << "<line x1='" << left << "' x2='" << left + kWidth - 130 << "' y1='" << y(tenth / 10.0)
           << "' y2='" << y(tenth / 10.0) << "' stroke='#ddd'/><text x='" << left - 28 << "' y='"
           << y(tenth / 10.0) + 4 << "'>" << tenth / 10.0 << "</text>\n";
    }
    for (double moves = 1; moves <= most; moves *= 10) {
      svg_ << "<text x='" << x(moves) << "' y='" << kHeight - 28 << "' text-anchor='middle'>"
           << static_cast<int64_t>(moves) << "</text>\n";
    }
    svg_ << "<text x='" << left << "' y='" << kHeight - 10
         << "'>moves (balancedness upwards)</text>\n";
    for (const Point& p : points) {
      if (p.apply_seconds > 0) continue;
      svg_ << "<circle cx='" << x(static_cast<double>(p.moves)) << "' cy='" << y(p.balancedness)
           << "' r='4' fill='" << (p.ours ? "#0a7" : "#c63") << "'><title>" << p.name << ": "
           << p.balancedness << ", " << p.moves << " moves</title></circle><text x='"
           << x(static_cast<double>(p.moves)) + 6 << "' y='"
           << y(p.balancedness) + (p.ours ? -4 : 12) << "' font-size='9'>" << p.name << "</text>\n";
    }
  }
  void write(const std::string& file) const {
    std::ofstream out(file);
    out << "<svg xmlns='http://www.w3.org/2000/svg' width='" << 20 + kWidth * panels_
        << "' height='" << kHeight << "' font-family='sans-serif' font-size='11'>\n"
        << "<rect width='100%' height='100%' fill='white'/>\n"
        << svg_.str() << "</svg>\n";
    if (!out.flush()) throw std::runtime_error("cannot write " + file);
  }

 private:
  static constexpr double kWidth = 470;
  static constexpr double kHeight = 380;
  int panels_ = 0;
  std::ostringstream svg_;
};

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
  Picture picture;
  for (const auto& file : files) {
    const TraceFile trace(file.string());
    if (trace.steps() < 2) continue;  // a load, not a trace
    const Topology topology = shape_of(trace);
    const auto points = compare(trace, topology);
    print_table(file.stem().string(), topology, points);
    picture.add(file.stem().string(), points);
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
