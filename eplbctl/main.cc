// eplbctl: for people and scripts. Exit 0 done, 1 refused or failed, 2 usage.
// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "daemon/version.h"
#include "eplbctl/errors.h"
#include "eplbctl/flags.h"

namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Balances experts over GPUs: talks to a running eplbd, and plans offline.",
               "eplbctl");
  app.set_version_flag("--version", "eplbctl " + std::string(eplbd::kProgramVersion));
  app.require_subcommand(1);
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
