// The process: one io_context, on whose thread everything mutable lives, with its sockets, timers
// and signals, and systemd told how it fares.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "config/config.h"

namespace eplbd {

// The keys that the configuration names cannot be used.
class KeysError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Daemon {
 public:
  // Locks the state directory, recovers the state, binds everything. Throws StateHeldError,
  // StateForeignError, KeysError, or std::runtime_error naming what cannot be used. `config_file`
  // is what a reload reads.
  Daemon(const Config& config, std::string config_file);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Until SIGTERM or SIGINT, or stop().
  void run();
  void stop();  // from the loop's thread or another

  // As bound, with the ports that were free.
  std::vector<std::string> counts_endpoints() const;
  std::vector<std::string> placements_endpoints() const;
  uint16_t http_port() const;
  const std::string& control_socket() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Where the state and the control socket lie, by configuration, systemd's environment or XDG.
std::string state_directory_of(const Config& config);
std::string control_socket_of(const Config& config);

}  // namespace eplbd
