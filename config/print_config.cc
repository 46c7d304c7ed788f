// SPDX-License-Identifier: Apache-2.0
#include <sstream>
#include <stdexcept>
#include <utility>

#include "config/config.h"
#include "config/yaml_node.h"
#include "config/yaml_scalar.h"

namespace eplbd {
namespace {

std::string text(const std::string& value) { return quoted(value); }
std::string text(bool value) { return value ? "true" : "false"; }
std::string text(int32_t value) { return std::to_string(value); }
std::string text(int64_t value) { return std::to_string(value); }
std::string text(uint64_t value) { return std::to_string(value); }
std::string text(double value) { return number_text(value); }
std::string text(Duration value) { return duration_text(value); }
std::string text(const std::optional<Duration>& value) {
  return value ? duration_text(*value) : "auto";
}
template <typename Enum>
requires std::is_enum_v<Enum> std::string text(Enum value) { return std::string(to_string(value)); }
template <typename T>
std::string text(const std::vector<T>& values) {
  std::string out = "[";
  for (const T& value : values) out += (out.size() == 1 ? "" : ", ") + text(value);
  return out + "]";
}

class Writer {
 public:
  template <typename T>
  void top(const char* key, const T& value) {
    out_ << key << ": " << text(value) << '\n';
  }
  void section(const char* key) { out_ << key << ":\n"; }
  template <typename T>
  void value(const char* key, const T& value) {
    out_ << "  " << key << ": " << text(value) << '\n';
  }
  void bind(const char* key, const std::vector<std::string>& addresses) {
    out_ << "  " << key << ": {bind: " << text(addresses) << "}\n";
  }
  std::string str() const { return out_.str(); }

 private:
  std::ostringstream out_;
};

void write_topology(Writer& out, const Topology& topology) {
  out.section("topology");
  out.value("layers", topology.layers);
  out.value("logical_experts", topology.logical_experts);
  out.value("slots", topology.slots);
  out.value("gpus", topology.gpus);
  out.value("nodes", topology.nodes);
  out.value("groups", topology.groups);
  out.value("layer_ids", topology.layer_ids);
  out.value("gpu_speeds", topology.gpu_speeds);
}

void write_rebalancer(Writer& out, const RebalancerOptions& options) {
  out.top("mode", options.mode);
  out.section("window");
  out.value("half_life", options.window.half_life);
  out.section("trigger");
  out.value("imbalance", options.trigger.imbalance);
  out.value("settle", options.trigger.settle);
  out.value("interval", options.trigger.interval);
  out.value("cooldown", options.trigger.cooldown);
  out.value("min_tokens", options.trigger.min_tokens);
  out.value("min_tokens_per_gpu_step", options.trigger.min_tokens_per_gpu_step);
  out.value("min_gain", options.trigger.min_gain);
  out.section("limits");
  out.value("updates_per_hour", options.limits.updates_per_hour);
  out.value("moves_per_hour", options.limits.moves_per_hour);
  out.value("max_moves", options.limits.max_moves);
  out.value("max_moves_per_gpu", options.limits.max_moves_per_gpu);
  out.value("max_layers", options.limits.max_layers);
  out.value("sources", options.limits.sources);
  out.section("balancer");
  out.value("policy", options.balancer.policy);
  out.value("hierarchical", options.balancer.hierarchical);
  out.value("seed", options.balancer.seed);
  out.section("workers");
  out.value("engine", options.workers.engine);
  out.value("timeout", options.workers.timeout);
  out.value("apply_timeout", options.workers.apply_timeout);
}

}  // namespace

std::string_view to_string(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "debug";
    case LogLevel::info:
      return "info";
    case LogLevel::warning:
      return "warning";
    case LogLevel::error:
      return "error";
  }
  throw std::logic_error("not a log level");
}

std::string_view to_string(LogFormat format) {
  switch (format) {
    case LogFormat::text:
      return "text";
    case LogFormat::json:
      return "json";
  }
  throw std::logic_error("not a log format");
}

std::string_view to_string(Hierarchical hierarchical) {
  switch (hierarchical) {
    case Hierarchical::automatic:
      return "auto";
    case Hierarchical::yes:
      return "true";
    case Hierarchical::no:
      return "false";
  }
  throw std::logic_error("neither automatic, yes nor no");
}

std::string print_config(const Config& config) {
  Writer out;
  out.top("deployment", config.deployment);
  write_topology(out, config.topology);
  out.section("endpoints");
  out.bind("counts", config.endpoints.counts_bind);
  out.bind("placements", config.endpoints.placements_bind);
  out.section("http");
  out.value("listen", config.http.listen);
  out.value("allow_remote", config.http.allow_remote);
  out.section("control");
  out.value("socket", config.control_socket);
  out.section("state");
  out.value("directory", config.state_directory);
  write_rebalancer(out, config.rebalancer);
  out.section("log");
  out.value("level", config.log.level);
  out.value("format", config.log.format);
  out.section("ha");
  out.value("etcd", config.ha.etcd);
  out.value("prefix", config.ha.prefix);
  out.value("ttl", config.ha.ttl);
  out.section("security");
  out.value("curve_secret_key", config.security.curve_secret_key);
  out.value("authorized_keys", config.security.authorized_keys);
  out.value("allow_plaintext_remote", config.security.allow_plaintext_remote);
  return out.str();
}

std::vector<std::string> unreloadable_changes(const Config& running, const Config& next) {
  const std::pair<const char*, bool> keys[] = {
      {"deployment", running.deployment == next.deployment},
      {"topology", running.topology == next.topology},
      {"endpoints", running.endpoints == next.endpoints},
      {"http", running.http == next.http},
      {"control.socket", running.control_socket == next.control_socket},
      {"state.directory", running.state_directory == next.state_directory},
      {"ha", running.ha == next.ha},
      {"security", running.security == next.security}};
  std::vector<std::string> changed;
  for (const auto& [key, same] : keys) {
    if (!same) changed.emplace_back(key);
  }
  return changed;
}

}  // namespace eplbd
