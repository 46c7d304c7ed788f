// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "eplbctl/flags.h"
#include "eplbctl/flags_check.h"
#include "eplbctl/keygen.h"
#include "eplbctl/load.h"
#include "eplbctl/solve.h"

namespace eplbd {
namespace {

void add_balancer(CLI::App& command, BalancerOptions& balancer, const std::string& policy) {
  add_choice<Policy>(command, "--policy", balancer.policy, "how to place")->default_str(policy);
  add_choice<Hierarchical>(command, "--hierarchical", balancer.hierarchical,
                           "keep expert groups on nodes")
      ->default_str("auto");
  command.add_option("--seed", balancer.seed, "of what a policy draws")
      ->check(in_range(0))
      ->capture_default_str();
}

void add_solve(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("solve", "One placement for the loads of a file, as JSON");
  const auto options = std::make_shared<SolveOptions>();
  add_path(*command, "--loads", options->loads, "load file: .npy, JSON, a table; steps are summed")
      ->required();
  add_shape(*command, options->shape)->required();
  add_balancer(*command, options->balancer, "joint");
  add_path(*command, "--current", options->current,
           "placement in force: moves are counted from it, incremental starts from it "
           "(default: the initial placement)");
  std::vector<CLI::Option*> incremental;
  incremental.push_back(
      command->add_option("--max-moves", options->budget.moves, "incremental: at most; 0: no limit")
          ->check(in_range(0)));
  incremental.push_back(command
                            ->add_option("--max-moves-per-gpu", options->budget.moves_per_gpu,
                                         "incremental: incoming, of any one GPU; 0: no limit")
                            ->check(in_range(0)));
  incremental.push_back(command
                            ->add_option("--settle", options->settle,
                                         "incremental: the imbalance of a layer at which to stop")
                            ->check(in_range(1.0, 1e9))
                            ->capture_default_str());
  command->add_flag("--bound", options->bound, "add a proven lower bound on the imbalance");
  CLI::Option* search = add_seconds(*command, "--search-seconds", options->search_seconds,
                                    "joint: go on searching for so long", 0, 1e6);
  command->add_option("--repeat", options->repeat, "time the policy so often, give the median")
      ->check(in_range(1, 1000000))
      ->capture_default_str();
  on_parsed(app, command, action, options, run_solve, [options, incremental, search] {
    const Policy policy = options->balancer.policy;
    const auto refuse = [](const CLI::Option* flag, const char* whose) {
      if (flag->count() > 0) throw UsageError(flag->get_name() + " is for --policy " + whose);
    };
    for (const CLI::Option* flag : incremental) {
      if (policy != Policy::incremental) refuse(flag, "incremental");
    }
    if (policy != Policy::joint) refuse(search, "joint");
  });
}

void add_load(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "load", "A simulated fleet of workers: publishes counts, follows placements");
  const auto options = std::make_shared<LoadOptions>();
  add_path(*command, "--config", options->config,
           "the daemon's configuration: deployment, topology, addresses (default: "
           "DeepSeek-V3's shape on the default addresses)");
  CLI::Option* trace =
      add_path(*command, "--trace", options->trace,
               "publish this trace, over and over (default: drawn traffic, a mix of domains "
               "that drifts and sometimes jumps, as recorded traffic does)");
  command->add_option("--deployment", options->deployment, "the deployment's name");
  command->add_option("--counts", options->counts, "where the daemon hears counts, ZeroMQ address");
  command->add_option("--placements", options->placements,
                      "where the daemon publishes placements, ZeroMQ address");
  command->add_option("--http", options->http, "the daemon's HTTP address, for its own figures");
  command->add_option("--slots", options->slots, "physical experts of a layer")->check(in_range(1));
  command->add_option("--gpus", options->gpus, "GPUs")->check(in_range(1));
  command->add_option("--sources", options->fleet.sources, "workers that count")
      ->check(in_range(1, 4096))
      ->capture_default_str();
  add_seconds(*command, "--interval", options->interval_seconds, "of a step (default: 1s)", 0.001,
              3600);
  command->add_option("--speed", options->speed, "times real time")
      ->check(in_range(0.001, 10000.0))
      ->capture_default_str();
  add_seconds(*command, "--apply-seconds", options->fleet.apply_seconds,
              "how long the workers take to apply a placement (default: 2s)", 0, 86400);
  add_seconds(*command, "--seconds", options->seconds, "end after so long (default: at a signal)",
              0, 1e7);
  command->add_option("--seed", options->seed, "of the drawn traffic")
      ->check(in_range(0))
      ->capture_default_str()
      ->excludes(trace);
  command->add_flag("--force", options->force,
                    "publish beside live workers too, or over what they left; placements made of "
                    "simulated load may then reach them");
  CLI::Option* key = add_path(*command, "--curve-secret-key", options->fleet.curve_secret_key,
                              "the workers' secret key, a file");
  CLI::Option* server = add_path(*command, "--curve-server-key", options->fleet.curve_server_key,
                                 "the daemon's public key, a file");
  key->needs(server);
  server->needs(key);
  command->add_flag("--json", options->json, "an object a second instead of a table");
  on_parsed(app, command, action, options, run_load);
}

void add_keygen(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("keygen", "A CURVE key pair: NAME.key (secret) and NAME.pub");
  const auto options = std::make_shared<KeygenOptions>();
  command->add_option("NAME", options->name, "path without the extension")
      ->required()
      ->check([](const std::string& name) {
        return name.empty() || name.ends_with('/') ? "must name a file, is \"" + name + "\"" : "";
      });
  CLI::Option* source = command->add_option("--source", options->sources,
                                            "a worker's key: the sources for which it may speak");
  CLI::Option* observer =
      command->add_flag("--observer", options->observer, "a key that may only subscribe");
  observer->excludes(source);
  command
      ->add_option("--workers", options->workers,
                   "so many pairs, NAME0, NAME1, ...: each for the source of that name")
      ->check(in_range(1, 4096))
      ->excludes(source)
      ->excludes(observer);
  on_parsed(app, command, action, options, run_keygen);
}

}  // namespace

void add_offline_commands(CLI::App& app, Action& action) {
  add_solve(app, action);
  add_load(app, action);
  add_keygen(app, action);
}

}  // namespace eplbd
