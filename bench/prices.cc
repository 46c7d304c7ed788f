// What a move of `incremental` should cost: balancedness and moves over a ladder of prices, on
// traces and in shapes of 8 to 144 GPUs; and the price that would be chosen without each trace.
//   bench_prices FOLDER [STEPS]       every FOLDER/*.npy, [steps, layers, experts], a step a second
// A price of 1 is the one in force under trigger.min_gain 0.003. Markdown on standard output.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "bench/shapes.h"
#include "core/balance/balancer.h"
#include "core/load/adaptive_window.h"
#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "core/model/time.h"
#include "eplbctl/trace_file.h"

namespace eplbd {
namespace {

constexpr double kMinGain = 0.003;
constexpr double kTrigger = 1.05;
constexpr double kSettle = 1.03;
constexpr double kPrices[] = {0.03, 0.25, 0.5, 1, 2, 4};
constexpr double kWorth = 0.002;  // balancedness that a price may cost

struct Score {
  double balancedness = 0;
  int64_t moves = 0;
};

std::vector<Topology> shapes_of(const TraceFile& trace) {
  std::vector<Topology> shapes;
  const auto add = [&](int32_t gpus, int32_t slots) {
    shapes.push_back(topology_of(trace.layers(), trace.experts(), slots, gpus));
  };
  const int32_t experts = trace.experts();
  if (experts < 128) {
    add(experts / 4, experts / 4 * 5);
    add(experts / 2, experts / 2 * 3);
  } else {
    for (const int32_t gpus : {32, 64, 72, 96, 144}) {
      add(gpus, (experts + 32 + gpus - 1) / gpus * gpus);
    }
  }
  return shapes;
}

// One move costs `price` as much as usual; an update is worth it as usual.
Score serve(const TraceFile& trace, int64_t steps, const Topology& topology, double price) {
  const auto balancer = make_balancer({Policy::incremental, Hierarchical::no, 0});
  AdaptiveWindow window(topology, {});
  Placement placement = Placement::initial(topology);
  std::vector<double> counts(trace.cells()), loads(trace.cells()), steady(trace.cells());
  std::vector<uint32_t> tokens(trace.cells());
  Score score;
  double means = 0, peaks = 0;
  for (int64_t step = 0; step < steps; ++step) {
    trace.read_step(step, counts);
    const auto gpus = gpu_loads(topology, placement, counts);
    for (auto row = gpus.begin(); row != gpus.end(); row += topology.gpus) {
      for (auto load = row; load != row + topology.gpus; ++load) means += *load / topology.gpus;
      peaks += *std::max_element(row, row + topology.gpus);
    }
    const TimePoint now(std::chrono::seconds(1000 + step));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint32_t>(counts[i]);
    window.add(tokens, std::chrono::seconds(1), now);
    window.tick(now);
    window.read(now, loads);
    Outlook outlook{.loads = loads,
                    .steady_loads = {},
                    .error = window.forecast_error(),
                    .newest_share = window.newest_share()};
    if (window.read_steady(steady)) outlook.steady_loads = steady;
    const auto layers = imbalance_of(topology, placement, loads).layers;
    if (*std::max_element(layers.begin(), layers.end()) <= kTrigger) continue;
    const Proposal proposal = balancer->propose({.topology = topology,
                                                 .in_force = placement,
                                                 .outlook = outlook,
                                                 .gpus_down = {},
                                                 .budget = {},
                                                 .settle = kSettle,
                                                 .min_gain = price * kMinGain});
    if (proposal.expected_gain.value_or(0) < kMinGain) continue;
    score.moves += count_moves(topology, placement, proposal.placement).total;
    placement = proposal.placement;
  }
  score.balancedness = peaks > 0 ? means / peaks : 1;
  return score;
}

// Mean balancedness that each price costs against the lowest one, of one trace over its shapes.
std::vector<double> costs_of(const TraceFile& trace, const std::string& name, int64_t most_steps) {
  const int64_t steps = most_steps > 0 ? std::min(most_steps, trace.steps()) : trace.steps();
  const auto shapes = shapes_of(trace);
  std::vector<double> costs;
  for (const Topology& topology : shapes) {
    std::printf("| %s | %d, %d |", name.c_str(), topology.gpus, topology.slots);
    double free = 0;
    for (size_t i = 0; i < std::size(kPrices); ++i) {
      const Score score = serve(trace, steps, topology, kPrices[i]);
      std::printf(" %.4f (%lld) |", score.balancedness, static_cast<long long>(score.moves));
      std::fflush(stdout);
      if (i == 0) free = score.balancedness;
      if (costs.size() <= i) costs.push_back(0);
      costs[i] += (free - score.balancedness) / static_cast<double>(shapes.size());
    }
    std::printf("\n");
  }
  return costs;
}

// The highest price that costs these traces no more than it may, on average.
size_t choose(const std::map<std::string, std::vector<double>>& costs, const std::string& without) {
  size_t chosen = 0;
  for (size_t i = 0; i < std::size(kPrices); ++i) {
    double sum = 0;
    int traces = 0;
    for (const auto& [name, cost] : costs) {
      if (name == without) continue;
      sum += cost[i];
      ++traces;
    }
    if (traces > 0 && sum / traces <= kWorth) chosen = i;
  }
  return chosen;
}

int run(int count, char** arguments) {
  if (count < 2) {
    std::cerr << "usage: bench_prices FOLDER [STEPS]\n";
    return 2;
  }
  const int64_t steps = count > 2 ? std::stoll(arguments[2]) : 0;
  std::printf("| trace | GPUs, slots |");
  for (const double price : kPrices) std::printf(" price %g |", price);
  std::printf("\n|---|---|--:|--:|--:|--:|--:|--:|\n");
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(arguments[1])) {
    if (entry.path().extension() == ".npy") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::map<std::string, std::vector<double>> costs;
  for (const auto& file : files) {
    const TraceFile trace(file.string());
    if (trace.steps() < 2) continue;  // a load, not a trace
    costs[file.stem().string()] = costs_of(trace, file.stem().string(), steps);
  }
  std::printf("\n| without | price chosen | which costs it |\n|---|--:|--:|\n");
  for (const auto& [name, cost] : costs) {
    const size_t chosen = choose(costs, name);
    std::printf("| %s | %g | %.4f |\n", name.c_str(), kPrices[chosen], cost[chosen]);
  }
  std::printf("| none | %g | |\n", kPrices[choose(costs, "")]);
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
