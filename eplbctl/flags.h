// The command line: what a command is called, its flags, and what runs it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace eplbd {

// What the command line chose; returns the exit code.
using Action = std::function<int()>;

// Each adds its commands; the one that is given sets `action`.
void add_daemon_commands(CLI::App& app, Action& action);   // of a running daemon
void add_replay_commands(CLI::App& app, Action& action);   // replay, advise
void add_offline_commands(CLI::App& app, Action& action);  // solve, load, keygen

}  // namespace eplbd
