// Where the state and the control socket lie: see daemon/daemon.h.
// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "daemon/daemon.h"

namespace eplbd {
namespace {

// The first of a colon-separated list (systemd.exec(5)), or empty.
std::string environment(const char* name) {
  const char* value = std::getenv(name);
  const std::string text = value == nullptr ? "" : value;
  return text.substr(0, text.find(':'));
}

// A deployment's name may hold anything; as a folder it is one level.
std::string as_folder(std::string name) {
  for (char& c : name) {
    if (c == '/') c = '_';
  }
  return name == "." || name == ".." ? "_" + name : name;
}

}  // namespace

std::string state_directory_of(const Config& config) {
  if (!config.state.directory.empty()) return config.state.directory;
  if (std::string given = environment("STATE_DIRECTORY"); !given.empty()) return given;
  std::string base = environment("XDG_STATE_HOME");
  if (base.empty()) {
    const std::string home = environment("HOME");
    if (home.empty()) {
      throw std::runtime_error(
          "no place for the state: set state.directory, $STATE_DIRECTORY or $HOME");
    }
    base = home + "/.local/state";
  }
  return base + "/eplbd/" + as_folder(config.deployment);
}

std::string control_socket_of(const Config& config) {
  if (!config.control.socket.empty()) return config.control.socket;
  const std::string runtime = environment("RUNTIME_DIRECTORY");
  return (runtime.empty() ? state_directory_of(config) : runtime) + "/control.sock";
}

}  // namespace eplbd
