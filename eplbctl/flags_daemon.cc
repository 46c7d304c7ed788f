// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "core/decide/decision.h"
#include "eplbctl/check_worker.h"
#include "eplbctl/flags.h"
#include "eplbctl/flags_check.h"
#include "eplbctl/history.h"
#include "eplbctl/orders.h"
#include "eplbctl/placement_command.h"
#include "eplbctl/record.h"
#include "eplbctl/status.h"

namespace eplbd {
namespace {

CLI::Option* add_duration(CLI::App& command, const std::string& flag, double& seconds,
                          const std::string& help) {
  return command.add_option(flag, seconds, help)->transform(duration())->type_name("DURATION");
}

class DaemonCommands {
 public:
  DaemonCommands(CLI::App& app, Action& action)
      : app_(app), action_(action), address_(std::make_shared<DaemonAddress>()) {
    CLI::Option* socket =
        add_path(app, "--socket", address_->socket,
                 "control socket of the daemon (default: /run/eplbd/control.sock)");
    CLI::Option* config =
        add_path(app, "--config", address_->config, "find it by the daemon's configuration file");
    CLI::Option* deployment = app.add_option("--deployment", address_->deployment,
                                             "find it by name: /run/eplbd/NAME/control.sock");
    deployment->type_name("NAME");
    socket->excludes(config)->excludes(deployment);
    config->excludes(deployment);
  }

  void add_all() {
    add_status();
    add_placement();
    add_orders();
    add_gpu();
    add_record();
    add_check_worker();
    add_history();
  }

 private:
  CLI::App* add(CLI::App& parent, const std::string& name, const std::string& help) {
    CLI::App* command = parent.add_subcommand(name, help);
    command->fallthrough();
    return command;
  }

  void add_status() {
    const auto options = std::make_shared<StatusOptions>();
    CLI::App* status =
        add(app_, "status", "What a running daemon does; exit 1: waiting or degraded");
    status->add_flag("--json", options->json, "as JSON: docs/http.md");
    status->callback([this, options] {
      options->daemon = *address_;
      action_ = [options] { return run_status(*options); };
    });
    CLI::App* watch = add(app_, "watch", "The same, live, until q or Ctrl-C");
    watch->add_flag("--json", options->json, "an object each time");
    add_duration(*watch, "--every", options->every_seconds, "how often (default: 1s)");
    watch->callback([this, options] {
      options->daemon = *address_;
      action_ = [options] { return run_watch(*options); };
    });
  }

  void add_placement() {
    const auto options = std::make_shared<PlacementOptions>();
    CLI::App* show = add(app_, "placement", "Which expert lies where; export, import, diff");
    const auto run = [this, options, show](CLI::App* command,
                                           int (*runs)(const PlacementOptions&)) {
      command->callback([this, options, show, command, runs] {
        if (action_) return;  // the innermost command is meant
        options->daemon = *address_;
        action_ = [options, show, command, runs] {
          if (command != show) take_leading(*show, *command);
          return runs(*options);
        };
      });
    };
    CLI::Option* json = show->add_flag("--json", options->json, "as JSON: docs/http.md");
    show->add_option("--layer", options->layer, "this layer, GPU by GPU")
        ->check(in_range(0))
        ->excludes(json);
    CLI::App* write = add(*show, "export", "Write the placement in force for an engine");
    add_path(*write, "--to", options->file, "the file; -: standard output")->required();
    add_choice<PlacementFormat>(*write, "--format", options->format,
                                "default: by the file's name (.npy npy, .yaml trtllm, .json json)");
    run(write, run_placement_export);
    CLI::App* read = add(*show, "import", "Publish a placement; holds until resume");
    add_path(*read, "FILE", options->file, "in any of the formats of export")->required();
    read->add_flag("--json", options->json, "the answer as JSON");
    read->add_flag("--dry-run", options->dry_run, "only say what it would bring");
    run(read, run_placement_import);
    CLI::App* diff = add(*show, "diff", "What a file would change");
    add_path(*diff, "FILE", options->file, "in any of the formats of export")->required();
    add_path(*diff, "OTHER", options->other, "compare FILE to this one, not to what is in force");
    diff->add_flag("--json", options->json, "layers and moves as JSON");
    run(diff, run_placement_diff);
    run(show, run_placement);
  }

  // One order: `fill` makes its path and body when it is the one that was given.
  CLI::App* add_order(CLI::App& parent, const std::string& name, const std::string& help,
                      std::function<void(OrderOptions&)> fill) {
    const auto options = std::make_shared<OrderOptions>();
    CLI::App* command = add(parent, name, help);
    command->add_flag("--json", options->json, "the answer as JSON: docs/control.md");
    const CLI::App* const above = &parent == &app_ ? nullptr : &parent;
    command->callback([this, options, above, command, fill = std::move(fill)] {
      options->daemon = *address_;
      fill(*options);
      action_ = [options, above, command] {
        if (above != nullptr) take_leading(*above, *command);
        return run_order(*options);
      };
    });
    return command;
  }

  void add_orders() {
    const auto dry_run = std::make_shared<bool>(false);
    add_order(app_, "rebalance", "Plan and publish now, whatever the trigger says",
              [dry_run](OrderOptions& o) {
                o.path = "/v1/rebalance";
                o.body = rebalance_body(*dry_run);
              })
        ->add_flag("--dry-run", *dry_run, "only say what it would bring");
    const auto seconds = std::make_shared<double>(0);
    CLI::App* pause = add_order(app_, "pause", "Publish nothing", [seconds](OrderOptions& o) {
      o.path = "/v1/pause";
      o.body = pause_body(*seconds);
    });
    add_duration(*pause, "--for", *seconds, "so long (default: until resume)");
    add_order(app_, "resume", "End a pause, and the hold of a rollback or import",
              [](OrderOptions& o) { o.path = "/v1/resume"; });
    const auto mode = std::make_shared<std::string>();
    constexpr auto kModes = names(Mode{});
    std::vector<std::string> modes(kModes.begin(), kModes.end());
    modes.emplace_back("config");
    CLI::App* set_mode = add_order(
        app_, "mode", "Tell the mode, or set it over the configuration's", [mode](OrderOptions& o) {
          o.path = mode->empty() ? "" : "/v1/mode";
          o.body = mode_body(*mode);
        });
    set_mode->add_option("MODE", *mode, "config: the configuration's again; without: tell")
        ->check(CLI::IsMember(modes));
    const auto version = std::make_shared<int64_t>(-1);
    const auto only_say = std::make_shared<bool>(false);
    CLI::App* rollback =
        add_order(app_, "rollback", "Publish an earlier placement again; holds until resume",
                  [version, only_say](OrderOptions& o) {
                    o.path = "/v1/rollback";
                    o.body = rollback_body(*version, *only_say);
                  });
    rollback->add_option("VERSION", *version, "default: the one before")->check(in_range(0));
    rollback->add_flag("--dry-run", *only_say, "only say what it would bring");
    add_resize();
    add_order(app_, "reload", "Read the configuration file again",
              [](OrderOptions& o) { o.path = "/v1/reload"; });
    CLI::App* leader = add(app_, "leader", "Which of several daemons leads: status names it");
    leader->require_subcommand(1);
    add_order(*leader, "step-down", "Another daemon takes over at once",
              [](OrderOptions& o) { o.path = "/v1/leader/step-down"; });
  }

  void add_resize() {
    struct Resize {
      int32_t gpus = 0;
      int32_t slots = 0;
      bool dry_run = false;
    };
    const auto options = std::make_shared<Resize>();
    CLI::App* resize =
        add_order(app_, "resize", "The group grew or shrank: plan from what it carried over",
                  [options](OrderOptions& o) {
                    o.path = "/v1/resize";
                    o.body = resize_body(options->gpus, options->slots, options->dry_run);
                  });
    resize->add_option("--gpus", options->gpus, "GPUs that it has now")
        ->required()
        ->check(in_range(1));
    resize->add_option("--slots", options->slots, "physical experts of each layer over all of them")
        ->required()
        ->check(in_range(1));
    resize->add_flag("--dry-run", options->dry_run, "only say what it would bring");
  }

  void add_gpu() {
    const auto options = std::make_shared<StatusOptions>();
    CLI::App* gpu = add(app_, "gpu", "Tell which GPUs are down; take one out, and back in");
    gpu->require_subcommand(0, 1);
    gpu->add_flag("--json", options->json, "which are down, as JSON");
    gpu->callback([this, options] {
      if (action_) return;  // the innermost command is meant
      options->daemon = *address_;
      action_ = [options] { return run_gpus(*options); };
    });
    const auto number = std::make_shared<int32_t>(0);
    const auto lost = std::make_shared<bool>(false);
    CLI::App* drain = add_order(*gpu, "drain", "Its slots become empty; survives a restart",
                                [number, lost](OrderOptions& o) {
                                  o.path = "/v1/gpu";
                                  o.body = gpu_body(*number, *lost ? "lost" : "drain");
                                });
    drain->add_option("GPU", *number, "its number")->required()->check(in_range(0));
    drain->add_flag("--lost", *lost, "it cannot hand its weights over either");
    add_order(*gpu, "restore", "It may hold experts again",
              [number](OrderOptions& o) {
                o.path = "/v1/gpu";
                o.body = gpu_body(*number, "restore");
              })
        ->add_option("GPU", *number, "its number")
        ->required()
        ->check(in_range(0));
  }

  void add_record() {
    const auto options = std::make_shared<RecordOptions>();
    CLI::App* command = add(app_, "record", "Write this deployment's counts as a trace");
    add_path(*command, "--to", options->file, "a .npy file, which must not exist")
        ->required()
        ->check(has_suffix({".npy"}));
    add_duration(*command, "--for", options->for_seconds, "so long (default: until Ctrl-C)");
    add_duration(*command, "--every", options->every_seconds, "a step (default: 1s)");
    add_duration(*command, "--keep", options->keep_seconds,
                 "only the last so much, as a ring (default: everything)");
    command->callback([this, options] {
      options->daemon = *address_;
      action_ = [options] { return run_record(*options); };
    });
  }

  void add_check_worker() {
    const auto options = std::make_shared<CheckWorkerOptions>();
    CLI::App* command =
        add(app_, "check-worker", "What workers send, message by message: right, or what is wrong");
    add_duration(*command, "--for", options->for_seconds, "so long (default: 60s)");
    command->add_flag("--json", options->json, "an object a message: docs/control.md");
    command->callback([this, options] {
      options->daemon = *address_;
      action_ = [options] { return run_check_worker(*options); };
    });
  }

  void add_history() {
    const auto options = std::make_shared<HistoryOptions>();
    CLI::App* command = add(app_, "history", "The placements that are kept, over restarts too");
    command->add_flag("--json", options->json, "as JSON: docs/http.md");
    command->callback([this, options] {
      options->daemon = *address_;
      action_ = [options] { return run_history(*options); };
    });
  }

  CLI::App& app_;
  Action& action_;
  std::shared_ptr<DaemonAddress> address_;
};

}  // namespace

void add_daemon_commands(CLI::App& app, Action& action) {
  // The callbacks refer to it, and it lives as long as the command line does.
  static DaemonCommands commands(app, action);
  commands.add_all();
}

}  // namespace eplbd
