// SPDX-License-Identifier: Apache-2.0
#include "config/usable.h"

#include <net/if.h>

#include <filesystem>
#include <stdexcept>

#include "config/address.h"
#include "config/file.h"
#include "config/yaml_node.h"

namespace eplbd {
namespace {

// systemd makes them for the service alone: whoever checks the file cannot see them.
bool is_credential(const std::string& path) { return path.starts_with("/run/credentials/"); }

void check_file(Findings& in, const std::string& key, const std::string& path,
                Readable may = Readable::by_anybody) {
  if (path.empty() || is_credential(path)) return;
  try {
    read_regular_file(path, 1, may);
  } catch (const std::runtime_error& error) {
    in.problem(key, "cannot read " + eplbd::quoted(path) + ": " + error.what());
  }
}

void check_keys(Findings& in, const SecurityOptions& security) {
  check_file(in, "security.curve_secret_key", security.curve_secret_key, Readable::not_by_anybody);
  const std::string& keys = security.authorized_keys;
  std::error_code error;
  if (!keys.empty() && !is_credential(keys)) {
    const std::filesystem::directory_iterator files(keys, error);
    if (error) {
      in.problem("security.authorized_keys",
                 "cannot read " + eplbd::quoted(keys) + ": " + error.message());
    }
  }
}

void check_address(Findings& in, const std::string& key, const std::string& address) {
  const AddressCheck check = check_zmq_address(address);
  if (!in.sound(key) || check.problem) return;
  if (address.starts_with("ipc://")) {
    const auto folder = std::filesystem::path(address.substr(6)).parent_path();
    std::error_code error;
    if (!folder.empty() && !std::filesystem::is_directory(folder, error)) {
      in.problem(key, "there is no folder " + eplbd::quoted(folder.string()) + " for " +
                          eplbd::quoted(address));
    }
    return;
  }
  const auto at = split_host_port(address.substr(6));
  if (check.interface && if_nametoindex(at->host.c_str()) == 0) {
    in.problem(key, "this machine has no network interface " + eplbd::quoted(at->host));
  }
}

}  // namespace

void check_usable(Findings& in, const Config& config) {
  check_keys(in, config.security);
  check_file(in, "ha.password", config.ha.password, Readable::not_by_anybody);
  check_file(in, "ha.ca", config.ha.ca);
  check_file(in, "ha.certificate", config.ha.certificate);
  check_file(in, "ha.key", config.ha.key, Readable::not_by_anybody);
  const auto check_all = [&](const std::string& key, const BindOptions& socket) {
    for (size_t i = 0; i < socket.bind.size(); ++i) {
      check_address(in, item_key(key, i), socket.bind[i]);
    }
  };
  check_all("endpoints.counts.bind", config.endpoints.counts);
  check_all("endpoints.placements.bind", config.endpoints.placements);
}

}  // namespace eplbd
