// SPDX-License-Identifier: Apache-2.0
#include "config/config.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>

#include "config/address.h"
#include "config/yaml_scalar.h"
#include "config/yaml_section.h"

namespace eplbd {
namespace {

constexpr size_t kMaxNameBytes = 128;
constexpr size_t kMaxSocketPathBytes = 107;  // sockaddr_un
constexpr Range<int64_t> kCount{0, std::numeric_limits<int64_t>::max()};

void check_name(Section& in, const std::string& name, const std::string& value, size_t least) {
  if (value.size() < least || value.size() > kMaxNameBytes) {
    in.problem(name, "must have " + std::to_string(least) + " to " + std::to_string(kMaxNameBytes) +
                         " bytes, has " + std::to_string(value.size()));
  }
}

void check_path(Section& in, const std::string& name, const std::string& value, size_t most) {
  if (value.size() > most) {
    in.problem(name, "must have at most " + std::to_string(most) + " bytes, has " +
                         std::to_string(value.size()));
  }
}

void read_deployment(Section& top, std::string& deployment, Require require) {
  if (top.read("deployment", deployment)) {
    check_name(top, "deployment", deployment, 1);
  } else if (!top.has("deployment") && require == Require::everything) {
    top.problem("deployment", "is required: what workers name as their topic");
  }
}

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

void read_topology(Section& top, Topology& topology, Require require) {
  const bool stands = top.has("topology");
  Section in = top.section("topology");
  bool complete = true;
  const auto required = [&](const char* name, int32_t& out) {
    if (in.read(name, out, 1)) return;
    complete = false;
    if (stands && in.readable() && !in.has(name) && require == Require::everything) {
      in.problem(name, "is required");
    }
  };
  required("layers", topology.layers);
  required("logical_experts", topology.logical_experts);
  required("slots", topology.slots);
  required("gpus", topology.gpus);
  for (const auto& [name, out] :
       {std::pair{"nodes", &topology.nodes}, {"groups", &topology.groups}}) {
    if (in.has(name)) complete = in.read(name, *out, 1) && complete;
  }
  if (in.has("layer_ids")) complete = in.read("layer_ids", topology.layer_ids) && complete;
  if (in.has("gpu_speeds")) complete = in.read("gpu_speeds", topology.gpu_speeds) && complete;
  if (!stands && require == Require::everything) {
    top.problem("topology", "is required: layers, logical_experts, slots, gpus, nodes, groups");
  }
  if (!complete) return;
  const std::vector<std::string> problems = topology.problems();
  for (const std::string& problem : problems) in.problem(topology_key(problem), problem);
  if (problems.empty() && topology.logical_experts % topology.groups != 0) {
    in.problem("groups",
               "groups " + std::to_string(topology.groups) + " must divide logical_experts " +
                   std::to_string(topology.logical_experts) + ": every group has as many experts");
  }
}

void read_bind(Section& in, std::vector<std::string>& addresses, bool remote_allowed) {
  const auto items = in.read("bind", addresses);
  if (addresses.empty()) in.problem("bind", "must list at least one address");
  for (const ListItem& item : items) {
    const AddressCheck check = check_zmq_address(item.text);
    if (check.problem) {
      in.problem(item, *check.problem + ", is " + quoted(item.text));
    } else if (!check.loopback && !remote_allowed) {
      in.problem(item, quoted(item.text) +
                           " is not loopback: set security.curve_secret_key, or "
                           "security.allow_plaintext_remote: true on a network you trust");
    }
  }
}

// Two sockets on one address: the second would fail to bind, or steal the first one's peers.
void check_distinct(Section& top, const Config& config) {
  std::set<std::string> taken;
  const auto take = [&](const char* section, const std::string& address) {
    if (address.ends_with(":0") || address.ends_with(":*")) return;
    if (!taken.insert(address).second) top.problem(section, quoted(address) + " stands twice");
  };
  for (const std::string& address : config.endpoints.counts_bind) take("endpoints", address);
  for (const std::string& address : config.endpoints.placements_bind) take("endpoints", address);
  take("http", "tcp://" + config.http.listen);
}

void read_security(Section& top, SecurityOptions& security) {
  Section in = top.section("security");
  in.read("curve_secret_key", security.curve_secret_key);
  in.read("authorized_keys", security.authorized_keys);
  in.read("allow_plaintext_remote", security.allow_plaintext_remote);
  if (!security.authorized_keys.empty() && security.curve_secret_key.empty()) {
    in.problem("authorized_keys", "is " + quoted(security.authorized_keys) +
                                      ", but security.curve_secret_key is \"\": without it "
                                      "there is no CURVE and nobody's key is asked for");
  }
}

void read_endpoints(Section& top, Config& config) {
  const bool remote_allowed =
      !config.security.curve_secret_key.empty() || config.security.allow_plaintext_remote;
  {
    Section in = top.section("endpoints");
    Section counts = in.section("counts");
    read_bind(counts, config.endpoints.counts_bind, remote_allowed);
    Section placements = in.section("placements");
    read_bind(placements, config.endpoints.placements_bind, remote_allowed);
  }
}

void read_http(Section& top, HttpOptions& http) {
  Section in = top.section("http");
  in.read("listen", http.listen);
  in.read("allow_remote", http.allow_remote);
  const AddressCheck check = check_http_address(http.listen);
  if (check.problem) {
    in.problem("listen", *check.problem + ", is " + quoted(http.listen));
  } else if (!check.loopback && !http.allow_remote) {
    in.problem("listen", quoted(http.listen) +
                             " is not loopback: set http.allow_remote: true to let others read "
                             "metrics and placements");
  }
}

void read_paths(Section& top, Config& config) {
  Section control = top.section("control");
  control.read("socket", config.control_socket);
  check_path(control, "socket", config.control_socket, kMaxSocketPathBytes);
  Section state = top.section("state");
  state.read("directory", config.state_directory);
}

void read_window(Section& top, WindowOptions& window) {
  Section in = top.section("window");
  in.read("half_life", window.half_life, "auto");
}

void read_trigger(Section& top, TriggerOptions& trigger) {
  Section in = top.section("trigger");
  bool comparable = true;
  const auto ratio = [&](const char* name, double& out) {
    if (in.has(name) && !in.read(name, out, {1.0})) comparable = false;
  };
  ratio("imbalance", trigger.imbalance);
  ratio("settle", trigger.settle);
  in.read("interval", trigger.interval);
  in.read("cooldown", trigger.cooldown, {.min = Duration{0}});
  in.read("min_tokens", trigger.min_tokens, kCount);
  in.read("min_tokens_per_gpu_step", trigger.min_tokens_per_gpu_step, kCount);
  in.read("min_gain", trigger.min_gain, {0.0});
  if (comparable && !(trigger.imbalance > trigger.settle)) {
    in.problem(in.has("imbalance") ? "imbalance" : "settle",
               "trigger.imbalance " + number_text(trigger.imbalance) +
                   " must be above trigger.settle " + number_text(trigger.settle));
  }
}

void read_limits(Section& top, LimitOptions& limits) {
  Section in = top.section("limits");
  in.read("updates_per_hour", limits.updates_per_hour, kCount);
  in.read("moves_per_hour", limits.moves_per_hour, kCount);
  in.read("max_moves", limits.max_moves, kCount);
  in.read("max_moves_per_gpu", limits.max_moves_per_gpu, kCount);
  in.read("max_layers", limits.max_layers, kCount);
  in.read("sources", limits.sources, kCount);
}

void read_balancer(Section& top, const Topology& topology, BalancerOptions& balancer) {
  Section in = top.section("balancer");
  in.read_choice("policy", balancer.policy,
                 {Policy::incremental, Policy::joint, Policy::deepseek, Policy::evolved});
  in.read_choice("hierarchical", balancer.hierarchical,
                 {Hierarchical::automatic, Hierarchical::yes, Hierarchical::no});
  in.read("seed", balancer.seed);
  if (balancer.hierarchical == Hierarchical::yes && topology.problems().empty() &&
      !topology.divides_hierarchically()) {
    in.problem("hierarchical",
               "is true, but the topology cannot keep groups on nodes: nodes must divide groups "
               "and slots, and groups logical_experts");
  }
}

void read_workers(Section& top, WorkerOptions& workers) {
  Section in = top.section("workers");
  if (in.read("engine", workers.engine)) check_name(in, "engine", workers.engine, 0);
  in.read("timeout", workers.timeout);
  in.read("apply_timeout", workers.apply_timeout);
}

void read_log(Section& top, LogOptions& log) {
  Section in = top.section("log");
  in.read_choice("level", log.level,
                 {LogLevel::debug, LogLevel::info, LogLevel::warning, LogLevel::error});
  in.read_choice("format", log.format, {LogFormat::text, LogFormat::json});
}

void read_ha(Section& top, HaOptions& ha) {
  Section in = top.section("ha");
  in.read("etcd", ha.etcd);
  if (!ha.etcd.empty()) in.problem("etcd", "this version has no standby: remove it");
  if (in.read("prefix", ha.prefix)) check_name(in, "prefix", ha.prefix, 1);
  in.read("ttl", ha.ttl, {std::chrono::seconds(2), std::chrono::seconds(60)});
}

Config read_all(Section& top, Require require) {
  Config config;
  read_deployment(top, config.deployment, require);
  read_topology(top, config.topology, require);
  read_security(top, config.security);  // before endpoints, whose addresses it may open
  read_endpoints(top, config);
  read_http(top, config.http);
  check_distinct(top, config);
  read_paths(top, config);
  RebalancerOptions& rebalancer = config.rebalancer;
  top.read_choice("mode", rebalancer.mode, {Mode::observe, Mode::shadow, Mode::active});
  read_window(top, rebalancer.window);
  read_trigger(top, rebalancer.trigger);
  read_limits(top, rebalancer.limits);
  read_balancer(top, config.topology, rebalancer.balancer);
  read_workers(top, rebalancer.workers);
  read_log(top, config.log);
  read_ha(top, config.ha);
  return config;
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
  ConfigReader reader;
  Config config;
  {
    Section top(reader, root.get(), "", 1);
    config = read_all(top, require);
  }
  std::vector<ConfigProblem> problems = reader.finish();
  if (!problems.empty()) throw ConfigError(file, std::move(problems));
  return config;
}

Config read_config(const std::string& file, Require require) {
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  stream.peek();  // a folder opens, and fails here
  if (!stream.is_open() || stream.bad()) {
    const int error = errno;
    throw ConfigError(file, {{1, "file", std::string("cannot be read: ") + std::strerror(error)}});
  }
  std::string text(kMaxConfigBytes + 1, '\0');  // one more, so that a larger file is seen as such
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(stream.gcount()));
  return parse_config(text, file, require);
}

}  // namespace eplbd
