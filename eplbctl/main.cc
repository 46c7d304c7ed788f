// eplbctl: for people and scripts. Exit 0 done, 1 refused or failed, 2 usage.
// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>
#include <vector>

#include "config/nearest.h"
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

std::string suggestion(std::string_view written, const std::vector<std::string>& known) {
  const auto meant = eplbd::nearest(written, known);
  return meant ? "; did you mean " + *meant + "?" : "";
}

// Of a command and of those that it stands under.
std::vector<std::string> flags_of(const CLI::App* app) {
  std::vector<std::string> flags;
  for (; app != nullptr; app = app->get_parent()) {
    for (const CLI::Option* option : app->get_options()) {
      for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
    }
  }
  return flags;
}

// What stands where no command, flag or value is expected.
std::string unexpected(const CLI::App& app, const std::string& word) {
  if (word.starts_with('-')) {
    const std::string flag = word.substr(0, word.find('='));
    return "there is no flag " + flag + suggestion(flag, flags_of(&app));
  }
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  if (names.empty()) return "\"" + word + "\" is one word too many";
  const std::string meant = suggestion(word, names);
  return "there is no command \"" + word + "\"" +
         (meant.empty() ? "; there are " + commands_of(app) : meant);
}

// What is wrong with the command line, under the command that it got to. A word that nobody knows
// comes first: what seems to be missing is often that, misspelt.
std::string usage_error(const CLI::App* app, const CLI::Error& error) {
  const std::vector<std::string> rest = app->remaining(true);
  std::string name = app->get_name();
  while (!app->get_subcommands().empty()) {
    app = app->get_subcommands().back();
    name += " " + app->get_name();
  }
  std::string what = error.what();
  if (!rest.empty()) {
    what = unexpected(*app, rest.front());
  } else if (app->get_require_subcommand_min() > 0) {
    what = "a command is missing; there are " + commands_of(*app);
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
  eplbd::add_replay_commands(app, action);
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
    std::cerr << "eplbctl: " << command << ": " << eplbd::words_of(error) << '\n';
    return kFailed;
  }
}
