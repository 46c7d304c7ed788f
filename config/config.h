// The configuration file: YAML text -> Config, or every problem at once, each with its line.
// Keys and meaning: docs/configuration.md. Option structs live where they are used.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/decide/rebalancer.h"
#include "core/model/names.h"
#include "core/model/time.h"
#include "core/model/topology.h"

namespace eplbd {

constexpr auto names(Hierarchical) {
  return std::to_array<std::string_view>({"auto", "true", "false"});
}

struct BindOptions {
  std::vector<std::string> bind;  // ZeroMQ addresses
};

struct EndpointOptions {
  BindOptions counts = {{"tcp://127.0.0.1:15557"}};
  BindOptions placements = {{"tcp://127.0.0.1:15657"}};
};

struct HttpOptions {
  std::string listen = "127.0.0.1:9877";  // HOST:PORT, [::1]:PORT; port 0: any free one
  bool allow_remote = false;
};

struct ControlOptions {
  std::string socket;  // empty: control.sock in $RUNTIME_DIRECTORY, else the state directory
};

struct StateOptions {
  std::string directory;  // empty: $STATE_DIRECTORY, else $XDG_STATE_HOME/eplbd/DEPLOYMENT
};

enum class LogLevel { debug, info, warning, error };
constexpr auto names(LogLevel) {
  return std::to_array<std::string_view>({"debug", "info", "warning", "error"});
}
enum class LogFormat { text, json };
constexpr auto names(LogFormat) { return std::to_array<std::string_view>({"text", "json"}); }

struct LogOptions {
  LogLevel level = LogLevel::info;
  LogFormat format = LogFormat::text;
};

struct MetricsOptions {
  int64_t expert_bytes = 0;  // weights of one expert of one layer; 0: not told
};

// Several daemons of one deployment, of which one leads: agreed on in etcd.
struct HaOptions {
  std::vector<std::string> etcd;           // http://HOST:PORT or https://; empty: it serves alone
  std::string prefix = "/eplbd";           // of the keys: PREFIX/DEPLOYMENT/...
  Duration ttl = std::chrono::seconds(3);  // a leader that is gone is followed after so long
  std::string user;                        // empty: etcd asks for none
  std::string password;                    // a file
  std::string ca;                          // a file; empty: the authorities that the system trusts
  std::string certificate;                 // a file; empty: etcd asks for none
  std::string key;                         // its secret key, a file
};

struct SecurityOptions {
  std::string curve_secret_key;  // a file
  std::string authorized_keys;   // a folder
  bool allow_plaintext_remote = false;
};

struct Config {
  std::string deployment;
  Topology topology;
  EndpointOptions endpoints;
  HttpOptions http;
  ControlOptions control;
  StateOptions state;
  RebalancerOptions rebalancer;  // mode, window, trigger, limits, balancer, workers, follow
  LogOptions log;
  MetricsOptions metrics;
  HaOptions ha;
  SecurityOptions security;
};

struct ConfigProblem {
  int line = 1;         // a missing key has its section's
  std::string key;      // trigger.imbalance; "yaml" or "file" where it is not about one
  std::string message;  // what is wrong with it, and what would be right
};

// All problems of one file. what() has a line a problem: FILE:LINE: key: message.
class ConfigError : public std::runtime_error {
 public:
  ConfigError(std::string_view file, std::vector<ConfigProblem> problems);
  const std::vector<ConfigProblem>& problems() const { return problems_; }

 private:
  std::vector<ConfigProblem> problems_;
};

// `replay --config` takes everything but the deployment and its topology from the file; there they
// may stand and are not required. `usable`: what it names must be there on this machine, too.
enum class Require { everything, rules_only, usable };

// Throws ConfigError.
Config parse_config(std::string_view text, std::string_view file,
                    Require require = Require::everything);
Config read_config(const std::string& file, Require require = Require::everything);

// The whole configuration in force as YAML, defaults written out; parses to the same Config.
std::string print_config(const Config& config);

// Its JSON Schema (2020-12), for editors: types, ranges, defaults, and what each key means.
std::string config_schema();

// Keys outside of what a reload may change that differ; empty: a reload is fine.
std::vector<std::string> unreloadable_changes(const Config& running, const Config& next);

}  // namespace eplbd
