// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/daemon_client.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "config/config.h"
#include "daemon/daemon.h"

namespace eplbd {
namespace {

constexpr char kRuntimeDirectory[] = "/run/eplbd";
constexpr std::chrono::milliseconds kReadTimeout{5000};    // so long a Ctrl-C may have to wait
constexpr std::chrono::milliseconds kOrderTimeout{30000};  // answered once it took effect

// A daemon under systemd has its socket in /run, whatever our own environment says.
std::string socket_by_config(const std::string& file) {
  const Config config = read_config(file);
  if (!config.control.socket.empty()) return config.control.socket;
  const std::string run = kRuntimeDirectory;
  for (const std::string& socket :
       {control_socket_of(config), run + "/" + config.deployment + "/control.sock",
        run + "/control.sock"}) {
    if (::access(socket.c_str(), F_OK) == 0) return socket;
  }
  return control_socket_of(config);
}

std::string find_socket(const DaemonAddress& address) {
  if (!address.socket.empty()) return address.socket;
  if (!address.config.empty()) return socket_by_config(address.config);
  const std::string run = kRuntimeDirectory;
  return run + (address.deployment.empty() ? "" : "/" + address.deployment) + "/control.sock";
}

}  // namespace

DaemonClient::DaemonClient(const DaemonAddress& address) : socket_(find_socket(address)) {
  if (socket_.find('/') == std::string::npos) socket_.insert(0, "./");
}

HttpAnswer DaemonClient::ask(const std::string& path, const std::string& body) const {
  if (::access(socket_.c_str(), R_OK | W_OK) != 0) {
    const int error = errno;
    throw std::runtime_error(socket_ + ": " + std::strerror(error) +
                             (error == EACCES
                                  ? ": only root and members of the group eplbd may use it "
                                    "(adduser NAME eplbd, then log in anew)"
                                  : ": is eplbd running? --socket, --config or --deployment says "
                                    "where its control socket is"));
  }
  try {
    return http_request({socket_, path, body, body.empty() ? kReadTimeout : kOrderTimeout});
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(std::string(error.what()) +
                             ": eplbd does not answer there; is it running?");
  }
}

nlohmann::json DaemonClient::get(const std::string& path) const {
  const HttpAnswer answer = ask(path);
  nlohmann::json json = nlohmann::json::parse(answer.body, nullptr, false);
  if (answer.status != 200 || json.is_discarded()) {
    throw std::runtime_error(socket_ + ": " + path + " answers " + std::to_string(answer.status) +
                             " " + answer.body.substr(0, 200));
  }
  return json;
}

Topology DaemonClient::topology() const {
  const nlohmann::json shape = get("/api/v1/status").at("topology");
  Topology topology;
  topology.layers = shape.at("layers");
  topology.logical_experts = shape.at("logical_experts");
  topology.slots = shape.at("slots");
  topology.gpus = shape.at("gpus");
  topology.nodes = shape.at("nodes");
  topology.groups = shape.at("groups");
  topology.layer_ids = shape.at("layer_ids").get<std::vector<int32_t>>();
  return topology;
}

}  // namespace eplbd
