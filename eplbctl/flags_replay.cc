// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "config/config.h"
#include "eplbctl/advise.h"
#include "eplbctl/flags.h"
#include "eplbctl/flags_check.h"
#include "eplbctl/replay.h"

namespace eplbd {
namespace {

// Bytes: a number, or one with k, M, G or T (thousands), Ki, Mi, Gi or Ti (1024), and B or B/s.
CLI::Validator bytes() {
  CLI::Validator validator;
  validator.operation([](std::string& text) -> std::string {
    std::string wrong = "must be bytes above 0, as 44040192, 44M or 42MiB, is \"" + text + "\"";
    char* end = nullptr;
    double value = std::strtod(text.c_str(), &end);
    std::string unit(end);
    if (unit.ends_with("/s")) unit.resize(unit.size() - 2);
    if (unit.ends_with("B")) unit.pop_back();
    const bool binary = unit.size() == 2 && unit.back() == 'i';
    if (binary) unit.pop_back();
    constexpr std::string_view kUnits = "kMGT";
    if (unit == "K") unit = "k";
    const size_t power = unit.empty() ? 0 : kUnits.find(unit) + 1;
    if (end == text.c_str() || unit.size() > 1 || (power == 0 && !unit.empty())) return wrong;
    for (size_t i = 0; i < power; ++i) value *= binary ? 1024 : 1000;
    if (!(value > 0 && value <= 1e18)) return wrong;
    text = fmt::format("{}", value);
    return {};
  });
  return validator;
}

CLI::Option* add_expert_bytes(CLI::App& command, double& value) {
  return command
      .add_option("--expert-bytes", value, "weights of one expert of one layer, as 44M or 42MiB")
      ->transform(bytes())
      ->type_name("BYTES");
}

void add_time(CLI::App& command, VirtualTime& time) {
  add_seconds(command, "--step-seconds", time.step_seconds, "how long a step lasts (default: 1s)",
              1e-3, 86400);
  add_seconds(command, "--apply-seconds", time.apply_seconds,
              "a decided placement serves from so long after (default: 0s)", 0, 1e6);
  command
      .add_option("--sources", time.sources,
                  "so many workers share the trace and report out of step, once a step each; "
                  "decided every trigger.interval (1: once a step)")
      ->check(in_range(1, 4096))
      ->capture_default_str();
}

void add_replay(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "replay", "The daemon's own decisions over a trace, in virtual time, as JSON");
  const auto options = std::make_shared<ReplayOptions>();
  add_path(*command, "--trace", options->trace, "trace file: .npy, JSON, a table")->required();
  add_shape(*command, options->shape);
  add_path(*command, "--config", options->config,
           "a daemon's configuration: the rules, and the topology where --gpus is not given");
  CLI::Option* policy = add_choice<Policy>(*command, "--policy", options->policy,
                                           "how to place, instead of the configuration's");
  add_choice<Hierarchical>(*command, "--hierarchical", options->hierarchical,
                           "keep expert groups on nodes");
  command->add_option("--seed", options->seed, "of what a policy draws")->check(in_range(0));
  add_time(*command, options->time);
  CLI::Option* expert_bytes = add_expert_bytes(*command, options->price.expert_bytes);
  CLI::Option* bandwidth =
      command
          ->add_option("--bandwidth", options->price.bandwidth,
                       "bytes a second into one GPU, as 50G: prices moves, with --expert-bytes")
          ->transform(bytes())
          ->type_name("BYTES");
  expert_bytes->needs(bandwidth);
  bandwidth->needs(expert_bytes);
  CLI::Option* timeline =
      add_path(*command, "--timeline", options->timeline, "write a .csv file, a line a step");
  timeline->check(has_suffix({".csv"}));
  add_path(*command, "--report", options->report,
           "write a page, .html: imbalance over time, moves, layers and slots, beside an engine")
      ->check(has_suffix({".html", ".htm"}));
  CLI::Option* compare =
      command
          ->add_option("--compare", options->compared,
                       "a table of several: policies, configuration files, and "
                       "engine:vllm|sglang[,interval=N][,window=N][,pass=50ms] (steps of the "
                       "trace, or passes so long); none given: all policies and vLLM")
          ->expected(0, 1000)
          ->excludes(timeline)
          ->excludes(policy);
  command->add_flag("--json", options->json, "the table of --compare as JSON");
  on_parsed(app, command, action, options, run_replay, [options, compare] {
    options->compare = compare->count() > 0;
    if (options->compared.size() == 1 && options->compared.front().empty()) {
      options->compared.clear();  // --compare without a value
    }
  });
}

void add_advise(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "advise", "How many redundant experts pay: a trace replayed with more and more slots");
  const auto options = std::make_shared<AdviseOptions>();
  add_path(*command, "--trace", options->trace, "trace file: .npy, JSON, a table")->required();
  add_gpus(*command, options->shape)->required();
  command
      ->add_option("--slots", options->slots,
                   "physical experts of a layer to try: 256,288,320 (default: up to twice the "
                   "experts)")
      ->delimiter(',')
      ->check(in_range(1));
  add_path(*command, "--config", options->config, "a daemon's configuration: the rules");
  add_time(*command, options->time);
  add_expert_bytes(*command, options->expert_bytes);
  add_path(*command, "--picture", options->picture, "write an .svg file")
      ->check(has_suffix({".svg"}));
  command->add_flag("--json", options->json, "as JSON");
  on_parsed(app, command, action, options, run_advise);
}

}  // namespace

void add_replay_commands(CLI::App& app, Action& action) {
  add_replay(app, action);
  add_advise(app, action);
}

}  // namespace eplbd
