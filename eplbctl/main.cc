// eplbctl: for people and scripts. Exit 0 done, 1 refused or failed, 2 usage.
// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>
#include <vector>

#include "daemon/version.h"
#include "eplbctl/errors.h"
#include "eplbctl/flags.h"

namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

std::string commands_of(const CLI::App& app) {
  std::string list;
  for (const CLI::App* command : app.get_subcommands({})) {
    list += (list.empty() ? "" : ", ") + command->get_name();
  }
  return list;
}

// What is wrong with the command line, under the command that it got to.
std::string usage_error(const CLI::App* app, const CLI::Error& error) {
  const std::vector<std::string> rest = app->remaining(true);
  std::string name = app->get_name();
  while (!app->get_subcommands().empty()) {
    app = app->get_subcommands().back();
    name += " " + app->get_name();
  }
  std::string what = error.what();
  if (app->get_require_subcommand_min() > 0) {
    const bool unknown = !rest.empty() && !rest.front().starts_with('-');
    what = (unknown ? "there is no command \"" + rest.front() + "\"" : "a command is missing") +
           "; there are " + commands_of(*app);
  }
  return name + ": " + what + "\nSee " + name + " --help\n";
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Balances experts over GPUs: talks to a running eplbd, and plans offline.",
               "eplbctl");
  app.set_version_flag("--version", "eplbctl " + std::string(eplbd::kProgramVersion));
  app.require_subcommand(1);
  app.failure_message(usage_error);
  eplbd::Action action;
  eplbd::add_daemon_commands(app, action);
  eplbd::add_offline_commands(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  const std::string command = app.get_subcommands().front()->get_name();
  try {
    return action();
  } catch (const eplbd::UsageError& error) {
    std::cerr << "eplbctl: " << command << ": " << error.what() << '\n';
    return kUsage;
  } catch (const std::exception& error) {
    std::cerr << "eplbctl: " << command << ": " << error.what() << '\n';
    return kFailed;
  }
}
