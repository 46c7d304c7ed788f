// A running daemon as its operators reach it: over the control socket.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "core/model/topology.h"
#include "eplbctl/http_client.h"

namespace eplbd {

// Where its control socket is: the first of these that is given, else /run/eplbd/control.sock.
struct DaemonAddress {
  std::string socket;      // its path
  std::string config;      // the daemon's configuration file
  std::string deployment;  // /run/eplbd/NAME/control.sock
};

class DaemonClient {
 public:
  // Throws ConfigError where the configuration file is wrong.
  explicit DaemonClient(const DaemonAddress& address);

  // Each throws std::runtime_error that says what to do when nobody answers or access is denied.
  HttpAnswer ask(const std::string& path, const std::string& body = "") const;
  // The answer's JSON; throws with the daemon's own words when its status is not 200.
  nlohmann::json get(const std::string& path) const;
  Topology topology() const;

 private:
  std::string socket_;
};

}  // namespace eplbd
