// One placement from scratch: every policy on every shape and load, on one thread.
//   bench_solver [--traces FOLDER] [--seed-program FILE.py] [--python PYTHON] [--shape N]
//                [--repeat N] [--seed N]
//   bench_solver --sweep all|CONSTANT [--seed N]   what halving and doubling it does, see
//                                                  core/balance/scratch/constants.h
// Loads: log-normal and Zipf from a seed (1), and the FOLDER/**/*.npy whose layers and experts
// are the shape's. Where PYTHON (python3) has torch, bench/deepseek_reference.py runs in between,
// and FILE.py, a program with the same rebalance_experts(), beside it. The floor is `deepseek`: to
// sort, and to pass once over what was sorted. A table in Markdown.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "core/balance/bound.h"
#include "core/balance/scratch/joint.h"
#include "core/balance/scratch_policy.h"
#include "core/model/imbalance.h"
#include "eplbctl/trace_file.h"

namespace eplbd {
namespace {

// layers, logical experts, slots, groups, nodes, GPUs
constexpr int32_t kShapes[][6] = {
    {58, 256, 288, 8, 4, 32}, {58, 256, 288, 8, 18, 144}, {58, 256, 288, 1, 1, 72},
    {58, 256, 320, 1, 1, 64}, {94, 128, 144, 1, 1, 16},   {48, 128, 128, 1, 1, 8},
    {36, 128, 160, 1, 1, 32}, {24, 32, 40, 1, 1, 8},      {32, 8, 16, 1, 1, 4},
    {61, 384, 416, 1, 1, 32}, {61, 512, 1024, 8, 32, 256}};

struct Options {
  std::string traces, seed_program;
  std::string python = "python3";
  int shape = -1;
  int repeat = 5;
  uint64_t seed = 1;
  std::string sweep;
};

struct Load {
  std::string name;
  std::vector<double> loads;  // [layers, logical_experts]
};

struct Solved {
  std::vector<int32_t> map;
  double seconds = 0;
};

Topology topology_of(const int32_t (&shape)[6]) {
  Topology topology;
  topology.layers = shape[0];
  topology.logical_experts = shape[1];
  topology.slots = shape[2];
  topology.groups = shape[3];
  topology.nodes = shape[4];
  topology.gpus = shape[5];
  return topology;
}

std::vector<double> log_normal(const Topology& topology, double sigma, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> loads(static_cast<size_t>(topology.layers) * topology.logical_experts);
  for (double& load : loads) load = std::round(1e5 * std::exp(sigma * normal(random)));
  return loads;
}

std::vector<double> zipf(const Topology& topology, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto experts = static_cast<size_t>(topology.logical_experts);
  std::vector<double> loads;
  std::vector<double> row(experts);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    for (size_t rank = 0; rank < experts; ++rank) row[rank] = std::round(1e8 / (rank + 1.0));
    std::shuffle(row.begin(), row.end(), random);
    loads.insert(loads.end(), row.begin(), row.end());
  }
  return loads;
}

std::vector<Load> loads_for(const Topology& topology, const std::string& folder, uint64_t seed) {
  std::vector<Load> loads = {{"log-normal 0.5", log_normal(topology, 0.5, seed)},
                             {"log-normal 1.0", log_normal(topology, 1.0, seed)},
                             {"Zipf 1.0", zipf(topology, seed)}};
  if (folder.empty()) return loads;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() == ".npy") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    const TraceFile trace(file.string());
    if (trace.layers() != topology.layers || trace.experts() != topology.logical_experts) continue;
    loads.push_back({file.stem().string(), trace.sum()});
  }
  return loads;
}

Solved solve(Policy policy, const Topology& topology, const std::vector<double>& loads,
             int repeat) {
  using Clock = std::chrono::steady_clock;
  const auto scratch = make_scratch_policy({policy});
  Solved solved;
  std::vector<double> seconds;
  for (int i = 0; i < repeat; ++i) {
    const auto start = Clock::now();
    solved.map = scratch->place(topology, loads, {}).placement.map();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + repeat / 2, seconds.end());
  solved.seconds = seconds[repeat / 2];
  return solved;
}

void write_npy(const std::string& file, const Topology& topology,
               const std::vector<double>& values) {
  std::string header = "{'descr': '<f8', 'fortran_order': False, 'shape': (" +
                       std::to_string(topology.layers) + ", " +
                       std::to_string(topology.logical_experts) + "), }";
  header.resize((10 + header.size() + 64) / 64 * 64 - 10, ' ');
  header.back() = '\n';
  std::ofstream out(file, std::ios::binary);
  const auto size = static_cast<uint16_t>(header.size());
  out.write("\x93NUMPY\x01\x00", 8);
  out.write(reinterpret_cast<const char*>(&size), sizeof(size));
  out << header;
  out.write(reinterpret_cast<const char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(double)));
}

// Nothing where Python or torch is missing.
std::optional<Solved> solve_in_python(const Options& options, const std::string& program,
                                      const Topology& topology, const std::vector<double>& loads) {
  const auto folder = std::filesystem::temp_directory_path();
  const std::string in = (folder / "eplbd_bench_loads.npy").string();
  const std::string out = (folder / "eplbd_bench_map.npy").string();
  write_npy(in, topology, loads);
  std::string command = options.python + " " EPLBD_SOURCE_DIR "/bench/deepseek_reference.py " + in;
  for (const int32_t number : {topology.slots, topology.groups, topology.nodes, topology.gpus}) {
    command += " " + std::to_string(number);
  }
  command += " --out " + out + (program.empty() ? "" : " --seed-program '" + program + "'");
  FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
  if (pipe == nullptr) return std::nullopt;
  double seconds = 0;
  const bool read = std::fscanf(pipe, "%lf", &seconds) == 1;
  if (pclose(pipe) != 0 || !read) return std::nullopt;
  const std::vector<double> map = TraceFile(out).sum();
  return Solved{{map.begin(), map.end()}, seconds};
}

// How many layers ours loses to the other by more than rounding.
int32_t layers_worse(const Imbalance& ours, const Imbalance& other) {
  int32_t worse = 0;
  for (size_t layer = 0; layer < ours.layers.size(); ++layer) {
    if (ours.layers[layer] > other.layers[layer] * (1 + 1e-9)) ++worse;
  }
  return worse;
}

struct Row {
  std::string policy;
  Imbalance imbalance;
  double seconds = 0;
};

void print_rows(const std::string& title, const std::vector<Row>& rows, double bound) {
  const auto seconds_of = [&](const char* policy) {
    const auto row =
        std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.policy == policy; });
    return row == rows.end() ? 0.0 : row->seconds;
  };
  const Row& joint =
      *std::find_if(rows.begin(), rows.end(), [](const Row& row) { return row.policy == "joint"; });
  const double reference = seconds_of("DeepSeek's Python");
  const double seed = seconds_of("seed's Python");
  for (const Row& row : rows) {
    std::printf("| %s | %s | %.5f | %.5f | %.3f |", title.c_str(), row.policy.c_str(),
                1 / row.imbalance.whole_model, 1 / bound, 1e3 * row.seconds);
    for (const double python : {reference, seed}) {
      python > 0 ? std::printf(" %.0fx |", python / row.seconds) : std::printf(" |");
    }
    std::printf(" %.1f | %d of %zu |\n", row.seconds / seconds_of("deepseek"),
                layers_worse(joint.imbalance, row.imbalance), joint.imbalance.layers.size());
  }
  std::fflush(stdout);
}

void compare(const Options& options, const Topology& topology, const Load& load) {
  std::vector<Row> rows;
  const auto add = [&](const std::string& policy, const Solved& solved) {
    rows.push_back({policy, imbalance_of(topology, Placement(topology, solved.map), load.loads),
                    solved.seconds});
  };
  for (const Policy policy : {Policy::deepseek, Policy::evolved, Policy::joint}) {
    const int repeat = policy == Policy::evolved ? 1 : options.repeat;
    add(std::string(to_string(policy)), solve(policy, topology, load.loads, repeat));
  }
  if (const auto reference = solve_in_python(options, "", topology, load.loads)) {
    add("DeepSeek's Python", *reference);
  }
  if (!options.seed_program.empty()) {
    const auto seed = solve_in_python(options, options.seed_program, topology, load.loads);
    if (seed) add("seed's Python", *seed);
  }
  const auto bound = imbalance_bound({Policy::joint}, topology, load.loads, {});
  std::string title = "(" + std::to_string(topology.layers);
  for (const int32_t number :
       {topology.logical_experts, topology.slots, topology.groups, topology.nodes, topology.gpus}) {
    title += "," + std::to_string(number);
  }
  print_rows(title + ") | " + load.name, rows, bound.whole_model);
}

struct Constant {
  const char* name;
  void (*scale)(SearchConstants&, double);
};

template <auto Field>
void scale_field(SearchConstants& constants, double factor) {
  auto& field = constants.*Field;
  using Value = std::remove_reference_t<decltype(field)>;
  field =
      std::max(static_cast<Value>(field * factor), std::is_integral_v<Value> ? Value(1) : Value(0));
}

constexpr Constant kConstants[] = {
    {"nine_slots", scale_field<&SearchConstants::nine_slots>},
    {"finest", scale_field<&SearchConstants::finest>},
    {"coarsest", scale_field<&SearchConstants::coarsest>},
    {"settled", scale_field<&SearchConstants::settled>},
    {"attempts_by_cost", scale_field<&SearchConstants::attempts_by_cost>},
    {"least_attempts", scale_field<&SearchConstants::least_attempts>},
    {"starts", scale_field<&SearchConstants::starts>},
    {"few_gpus", scale_field<&SearchConstants::few_gpus>},
    {"near", scale_field<&SearchConstants::near>},
    {"far", scale_field<&SearchConstants::far>},
    {"left_of_the_way", scale_field<&SearchConstants::left_of_the_way>},
    {"most_slots", scale_field<&SearchConstants::most_slots>},
    {"most_subsets", scale_field<&SearchConstants::most_subsets>},
    {"count_moves", scale_field<&SearchConstants::count_moves>},
    {"most_packings", scale_field<&SearchConstants::most_packings>}};

struct Swept {
  std::vector<double> imbalances;  // of all layers of all loads
  double seconds = 0;              // of this process, whatever else runs beside it
};

Swept solve_all(const SearchConstants& constants, const Topology& topology,
                const std::vector<Load>& loads) {
  const auto joint = make_joint({Policy::joint}, constants, {});
  Swept swept;
  for (const Load& load : loads) {
    const std::clock_t start = std::clock();
    const Placement placement = joint->place(topology, load.loads, {}).placement;
    swept.seconds += static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    const auto layers = imbalance_of(topology, placement, load.loads).layers;
    swept.imbalances.insert(swept.imbalances.end(), layers.begin(), layers.end());
  }
  return swept;
}

void print_change(const Swept& usual, const Swept& changed) {
  double sum = 0;
  double worst = -1;
  for (size_t i = 0; i < usual.imbalances.size(); ++i) {
    const double change = changed.imbalances[i] / usual.imbalances[i] - 1;
    sum += change;
    worst = std::max(worst, change);
  }
  std::printf(" %+.1e, %+.1e, %.2fx |", sum / static_cast<double>(usual.imbalances.size()), worst,
              changed.seconds / usual.seconds);
}

// On a few layers of shapes from 8 GPUs to 144, and of each synthetic load.
void sweep(const std::string& which, uint64_t seed) {
  constexpr int32_t kSwept[][6] = {{6, 256, 288, 8, 4, 32}, {6, 32, 40, 1, 1, 8},
                                   {6, 32, 48, 1, 1, 16},   {6, 256, 320, 1, 1, 64},
                                   {6, 256, 288, 1, 1, 72}, {6, 256, 288, 1, 1, 96},
                                   {6, 256, 288, 1, 1, 144}};
  std::puts("| constant | shape | halved: mean, worst layer, time | doubled |\n|---|---|---|---|");
  for (const auto& shape : kSwept) {
    const Topology topology = topology_of(shape);
    const auto loads = loads_for(topology, "", seed);
    const Swept usual = solve_all({}, topology, loads);
    for (const Constant& constant : kConstants) {
      if (which != "all" && which != constant.name) continue;
      std::printf("| %s | %d GPUs, %d slots |", constant.name, topology.gpus, topology.slots);
      for (const double factor : {0.5, 2.0}) {
        SearchConstants changed;
        constant.scale(changed, factor);
        print_change(usual, solve_all(changed, topology, loads));
      }
      std::puts("");
      std::fflush(stdout);
    }
  }
}

Options options_from(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--traces") {
      options.traces = argv[i + 1];
    } else if (flag == "--seed-program") {
      options.seed_program = argv[i + 1];
    } else if (flag == "--python") {
      options.python = argv[i + 1];
    } else if (flag == "--shape") {
      options.shape = std::stoi(argv[i + 1]);
    } else if (flag == "--seed") {
      options.seed = std::stoull(argv[i + 1]);
    } else if (flag == "--sweep") {
      options.sweep = argv[i + 1];
    } else if (flag == "--repeat") {
      options.repeat = std::max(1, std::stoi(argv[i + 1]));
    } else {
      throw std::invalid_argument("unknown flag " + flag);
    }
  }
  if (argc % 2 == 0) throw std::invalid_argument(std::string(argv[argc - 1]) + " lacks its value");
  return options;
}

void run(const Options& options) {
  if (!options.sweep.empty()) return sweep(options.sweep, options.seed);
  std::puts(
      "| shape | load | policy | balancedness | bound | ms | faster than DeepSeek's Python | "
      "than the seed's | times the floor | layers where `joint` is worse |\n"
      "|---|---|---|---|---|---|---|---|---|---|");
  int index = 0;
  for (const auto& shape : kShapes) {
    if (options.shape >= 0 && options.shape != index++) continue;
    const Topology topology = topology_of(shape);
    for (const Load& load : loads_for(topology, options.traces, options.seed)) {
      compare(options, topology, load);
    }
  }
}

}  // namespace
}  // namespace eplbd

int main(int argc, char** argv) try {
  eplbd::run(eplbd::options_from(argc, argv));
  return 0;
} catch (const std::exception& error) {
  std::cerr << "bench_solver: " << error.what() << "\n";
  return 2;
}
