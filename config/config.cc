// SPDX-License-Identifier: Apache-2.0
#include "config/config.h"

#include <set>

#include "config/address.h"
#include "config/file.h"
#include "config/key_reader.h"
#include "config/keys.h"
#include "config/usable.h"
#include "config/yaml_scalar.h"

namespace eplbd {
namespace {

// The key that a sentence about the topology names first.
std::string topology_key(const std::string& sentence) {
  std::string first;
  size_t position = sentence.npos;
  for (const char* key : {"layers", "logical_experts", "slots", "gpus", "nodes", "groups",
                          "layer_ids", "gpu_speeds"}) {
    const size_t found = sentence.find(key);
    if (found < position) {
      position = found;
      first = key;
    }
  }
  return first;
}

void check_topology(Findings& in, const Topology& topology) {
  if (!in.sound("topology")) return;
  const std::vector<std::string> problems = topology.problems();
  for (const std::string& problem : problems) {
    in.problem("topology." + topology_key(problem), problem);
  }
  if (problems.empty() && topology.logical_experts % topology.groups != 0) {
    in.problem("topology.groups",
               "groups " + std::to_string(topology.groups) + " must divide logical_experts " +
                   std::to_string(topology.logical_experts) + ": every group has as many experts");
  }
}

void check_bind(Findings& in, const std::string& section, const BindOptions& socket,
                bool remote_allowed) {
  const std::string key = section + ".bind";
  if (socket.bind.empty() && in.sound(key)) in.problem(key, "must list at least one address");
  for (size_t i = 0; i < socket.bind.size(); ++i) {
    const std::string& address = socket.bind[i];
    if (!in.sound(item_key(key, i))) continue;
    const AddressCheck check = check_zmq_address(address);
    if (check.problem) {
      in.problem(item_key(key, i), *check.problem + ", is " + quoted(address));
    } else if (!check.loopback && !remote_allowed) {
      in.problem(item_key(key, i), quoted(address) +
                                       " is not loopback: set security.curve_secret_key, or "
                                       "security.allow_plaintext_remote: true on a network you "
                                       "trust");
    }
  }
}

// Two sockets on one address: the second would fail to bind, or steal the first one's peers.
void check_distinct(Findings& in, const Config& config) {
  std::set<std::string> taken;
  const auto take = [&](const std::string& key, const std::string& address) {
    if (address.ends_with(":0") || address.ends_with(":*")) return;
    if (!taken.insert(address).second) in.problem(key, quoted(address) + " stands twice");
  };
  const auto take_all = [&](const std::string& key, const BindOptions& socket) {
    for (size_t i = 0; i < socket.bind.size(); ++i) take(item_key(key, i), socket.bind[i]);
  };
  take_all("endpoints.counts.bind", config.endpoints.counts);
  take_all("endpoints.placements.bind", config.endpoints.placements);
  take("http.listen", "tcp://" + config.http.listen);
}

void check_security(Findings& in, const SecurityOptions& security) {
  if (!security.authorized_keys.empty() && security.curve_secret_key.empty()) {
    in.problem("security.authorized_keys",
               "is " + quoted(security.authorized_keys) +
                   ", but security.curve_secret_key is \"\": without it there is no CURVE and "
                   "nobody's key is asked for");
  }
}

void check_http(Findings& in, const HttpOptions& http) {
  const AddressCheck check = check_http_address(http.listen);
  if (check.problem) {
    in.problem("http.listen", *check.problem + ", is " + quoted(http.listen));
  } else if (!check.loopback && !http.allow_remote) {
    in.problem("http.listen", quoted(http.listen) +
                                  " is not loopback: set http.allow_remote: true to let others "
                                  "read metrics and placements");
  }
}

void check_trigger(Findings& in, const TriggerOptions& trigger) {
  if (!in.sound("trigger.imbalance") || !in.sound("trigger.settle")) return;
  if (trigger.imbalance > trigger.settle) return;
  in.problem(in.given("trigger.imbalance") ? "trigger.imbalance" : "trigger.settle",
             "trigger.imbalance " + number_text(trigger.imbalance) +
                 " must be above trigger.settle " + number_text(trigger.settle));
}

void check_hierarchical(Findings& in, const Topology& topology, Hierarchical hierarchical) {
  if (hierarchical == Hierarchical::yes && topology.problems().empty() &&
      !topology.divides_hierarchically()) {
    in.problem("balancer.hierarchical",
               "is true, but the topology cannot keep groups on nodes: nodes must divide groups "
               "and slots, and groups logical_experts");
  }
}

void check_ha(Findings& in, const HaOptions& ha) {
  for (size_t i = 0; i < ha.etcd.size(); ++i) {
    const std::string key = item_key("ha.etcd", i);
    if (!in.sound(key)) continue;
    if (!split_http_url(ha.etcd[i])) {
      in.problem(key, "must be http://HOST:PORT or https://HOST:PORT, is " + quoted(ha.etcd[i]));
    }
  }
  const auto check_pair = [&](const char* one, bool has_one, const char* other, bool has_other) {
    if (has_one == has_other) return;
    in.problem(std::string("ha.") + (has_one ? one : other),
               std::string("needs ha.") + (has_one ? other : one) + " beside it");
  };
  check_pair("user", !ha.user.empty(), "password", !ha.password.empty());
  check_pair("certificate", !ha.certificate.empty(), "key", !ha.key.empty());
}

// What no key shows alone.
void check_together(Findings& in, const Config& config) {
  const SecurityOptions& security = config.security;
  const bool remote_allowed = !security.curve_secret_key.empty() || security.allow_plaintext_remote;
  check_topology(in, config.topology);
  check_security(in, security);
  check_bind(in, "endpoints.counts", config.endpoints.counts, remote_allowed);
  check_bind(in, "endpoints.placements", config.endpoints.placements, remote_allowed);
  check_http(in, config.http);
  check_distinct(in, config);
  check_trigger(in, config.rebalancer.trigger);
  check_hierarchical(in, config.topology, config.rebalancer.balancer.hierarchical);
  check_ha(in, config.ha);
}

std::string error_text(std::string_view file, const std::vector<ConfigProblem>& problems) {
  std::string text;
  for (const ConfigProblem& problem : problems) {
    if (!text.empty()) text += '\n';
    text += std::string(file) + ":" + std::to_string(problem.line) + ": " + problem.key + ": " +
            problem.message;
  }
  return text;
}

}  // namespace

ConfigError::ConfigError(std::string_view file, std::vector<ConfigProblem> problems)
    : std::runtime_error(error_text(file, problems)), problems_(std::move(problems)) {}

Config parse_config(std::string_view text, std::string_view file, Require require) {
  std::vector<ConfigProblem> unreadable;
  const YamlNodePtr root = parse_yaml(text, unreadable);
  if (!root) throw ConfigError(file, std::move(unreadable));
  Findings found;
  Config config;
  {
    KeyReader reader(found, *root, require != Require::rules_only);
    visit(config, reader);
  }
  check_together(found, config);
  if (require == Require::usable) check_usable(found, config);
  std::vector<ConfigProblem> problems = found.finish();
  if (!problems.empty()) throw ConfigError(file, std::move(problems));
  return config;
}

Config read_config(const std::string& file, Require require) {
  std::string text;
  try {
    text = read_regular_file(file, kMaxConfigBytes + 1);  // so that a larger one is seen as such
  } catch (const std::exception& error) {
    throw ConfigError(file, {{1, "file", std::string("cannot be read: ") + error.what()}});
  }
  return parse_config(text, file, require);
}

}  // namespace eplbd
