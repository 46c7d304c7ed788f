// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <string>

#include "eplbctl/flags.h"
#include "eplbctl/solve.h"

namespace eplbd {
namespace {

const std::map<std::string, Policy> kPolicies = {{"deepseek", Policy::deepseek},
                                                 {"evolved", Policy::evolved},
                                                 {"joint", Policy::joint},
                                                 {"incremental", Policy::incremental}};
const std::map<std::string, Hierarchical> kHierarchical = {
    {"auto", Hierarchical::automatic}, {"true", Hierarchical::yes}, {"false", Hierarchical::no}};

// Names in, values out; --help and errors show the names alone.
template <typename T>
CLI::Option* add_choice(CLI::App& command, const std::string& flag, T& value,
                        const std::map<std::string, T>& names, const std::string& help) {
  std::string list;
  for (const auto& [name, ignored] : names) list += (list.empty() ? "" : "|") + name;
  const auto parse = [&value, names, list, flag](const CLI::results_t& given) {
    const auto found = names.find(given.front());
    if (found == names.end()) {
      throw CLI::ValidationError(flag, "\"" + given.front() + "\" is none of " + list);
    }
    value = found->second;
    return true;
  };
  return command.add_option(flag, parse, help)->type_name(list);
}

void add_shape(CLI::App& command, ShapeOptions& shape) {
  command.add_option("--gpus", shape.gpus, "GPUs (expert-parallel ranks)")->required();
  command.add_option("--slots", shape.slots, "physical experts of a layer, over all GPUs")
      ->required();
  command.add_option("--nodes", shape.nodes, "nodes; consecutive GPUs form one")
      ->capture_default_str();
  command.add_option("--groups", shape.groups, "expert groups (group-limited routing)")
      ->capture_default_str();
  command.add_option("--gpu-speeds", shape.gpu_speeds, "relative speeds, one a GPU: 1,1,0.8,...")
      ->delimiter(',');
}

void add_balancer(CLI::App& command, BalancerOptions& balancer, const std::string& policy) {
  add_choice(command, "--policy", balancer.policy, kPolicies, "how to place")->default_str(policy);
  add_choice(command, "--hierarchical", balancer.hierarchical, kHierarchical,
             "keep expert groups on nodes")
      ->default_str("auto");
  command.add_option("--seed", balancer.seed, "of what a policy draws")->capture_default_str();
}

void add_solve(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("solve", "One placement for the loads of a file, as JSON");
  const auto options = std::make_shared<SolveOptions>();
  command->add_option("--loads", options->loads, "load file: .npy or JSON; steps are summed")
      ->required();
  add_shape(*command, options->shape);
  add_balancer(*command, options->balancer, "joint");
  command->add_option("--current", options->current,
                      "placement in force: moves are counted from it, incremental starts from it "
                      "(default: the initial placement)");
  command->add_option("--max-moves", options->budget.moves, "incremental: at most; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--max-moves-per-gpu", options->budget.moves_per_gpu,
                   "incremental: incoming, of any one GPU; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--settle", options->settle,
                   "incremental: the imbalance of a layer at which to stop")
      ->check(CLI::Range(1.0, 1e9))
      ->capture_default_str();
  command->add_flag("--bound", options->bound, "add a proven lower bound on the imbalance");
  command
      ->add_option("--search-seconds", options->search_seconds,
                   "joint: go on searching for so long")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--repeat", options->repeat, "time the policy so often, give the median")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command->callback([options, &action] { action = [options] { return run_solve(*options); }; });
}

}  // namespace

void add_offline_commands(CLI::App& app, Action& action) { add_solve(app, action); }

}  // namespace eplbd
