// Every key of the configuration, once: its name, the option it fills, what it means and what it
// may be. Reading, printing, comparing and the JSON Schema walk the same list:
//
//   visit(options, f) calls f(name, option, meaning, bounds) for a key, and
//   f.section(name, options, meaning) for a section, in which f goes on with visit().
//
// A key whose default lies outside of its own bounds must be given.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "config/config.h"
#include "core/model/utf8.h"

namespace eplbd {

// What a value may be: numbers and durations from `min` to `max`, texts of so many bytes; a boolean
// and an enum's names need nothing.
template <typename T>
struct Bounds {};
template <typename T>
concept Number = std::is_arithmetic_v<T> && !std::same_as<T, bool>;
template <Number T>
struct Bounds<T> {
  T min = std::numeric_limits<T>::lowest();
  T max = std::numeric_limits<T>::max();
};
template <>
struct Bounds<Duration> {
  Duration min = std::chrono::milliseconds(1);
  Duration max = std::chrono::hours(24 * 30);
};
template <>
struct Bounds<std::string> {
  size_t min = 0;
  size_t max = std::numeric_limits<size_t>::max();
};

// An optional value is the word `auto` where it is not set; a list bounds each of its elements.
inline constexpr std::string_view kAutomatic = "auto";
template <typename T>
struct BoundedValue {
  using type = T;
};
template <typename T>
struct BoundedValue<std::optional<T>> {
  using type = T;
};
template <typename T>
struct BoundedValue<std::vector<T>> {
  using type = T;
};
template <typename T>
using BoundsOf = Bounds<typename BoundedValue<std::remove_const_t<T>>::type>;

template <typename T>
bool must_be_given(const T& standard, const BoundsOf<T>& bounds) {
  if constexpr (std::same_as<T, std::string>) return standard.size() < bounds.min;
  if constexpr (std::same_as<T, int32_t>) return standard < bounds.min;
  return false;
}

template <typename T, typename Options>
concept Of = std::same_as<std::remove_const_t<T>, Options>;

inline constexpr size_t kMaxSocketPathBytes = 107;  // sockaddr_un

template <Of<Topology> T, typename F>
void visit(T& topology, F& f) {
  f("layers", topology.layers, "MoE layers only", {1});
  f("logical_experts", topology.logical_experts, "experts of each layer", {1});
  f("slots", topology.slots,
    "physical experts of each layer over all GPUs; a multiple of gpus, at least logical_experts",
    {1});
  f("gpus", topology.gpus, "expert-parallel ranks; a multiple of nodes", {1});
  f("nodes", topology.nodes, "consecutive GPUs form a node", {1});
  f("groups", topology.groups, "expert groups of group-limited routing", {1});
  f("layer_ids", topology.layer_ids,
    "the model's own number of each MoE layer, for labels and exports; []: 0, 1, 2 ...", {0});
  f("gpu_speeds", topology.gpu_speeds, "relative speed of each GPU, above 0; []: all alike");
}

// The section `topology`: the shape, and what is done about a group of another one.
template <Of<Topology> T, Of<bool> Follow>
struct TopologyKeys {
  T& topology;
  Follow& follow;
};
template <typename T, typename Follow>  // clang 14 deduces none of an aggregate
TopologyKeys(T&, Follow&)->TopologyKeys<T, Follow>;

template <typename T, typename Follow, typename F>
void visit(const TopologyKeys<T, Follow>& keys, F& f) {
  visit(keys.topology, f);
  f("follow", keys.follow,
    "true: a group that reports other slots or gpus is planned for by itself; false: eplbctl "
    "resize");
}

template <Of<BindOptions> T, typename F>
void visit(T& socket, F& f) {
  f("bind", socket.bind, "ZeroMQ addresses: tcp://HOST:PORT or ipc://PATH");
}

template <Of<EndpointOptions> T, typename F>
void visit(T& endpoints, F& f) {
  f.section("counts", endpoints.counts, "where workers' PUB sockets connect to");
  f.section("placements", endpoints.placements, "where workers' SUB sockets connect to");
}

template <Of<HttpOptions> T, typename F>
void visit(T& http, F& f) {
  f("listen", http.listen, "HOST:PORT, an IP address; port 0: any free one");
  f("allow_remote", http.allow_remote, "must be true for an address that is not loopback");
}

template <Of<ControlOptions> T, typename F>
void visit(T& control, F& f) {
  f("socket", control.socket,
    "UNIX socket of eplbctl; \"\": control.sock in $RUNTIME_DIRECTORY, else in the state directory",
    {0, kMaxSocketPathBytes});
}

template <Of<StateOptions> T, typename F>
void visit(T& state, F& f) {
  f("directory", state.directory,
    "what survives a restart; \"\": $STATE_DIRECTORY, else $XDG_STATE_HOME/eplbd/DEPLOYMENT");
}

template <Of<WindowOptions> T, typename F>
void visit(T& window, F& f) {
  f("half_life", window.half_life, "how fast old load is forgotten; auto: as predicts best");
}

template <Of<TriggerOptions> T, typename F>
void visit(T& trigger, F& f) {
  f("imbalance", trigger.imbalance, "act above this max/mean GPU load of a layer", {1});
  f("settle", trigger.settle, "where an update stops improving a layer; below imbalance", {1});
  f("interval", trigger.interval, "how often it decides");
  f("cooldown", trigger.cooldown, "least time since the last placement was applied",
    {.min = Duration{0}});
  f("min_tokens", trigger.min_tokens, "wait below so many routed tokens in the window", {0});
  f("min_tokens_per_gpu_step", trigger.min_tokens_per_gpu_step,
    "wait while a layer of a GPU gets fewer tokens than this per forward pass", {0});
  f("min_gain", trigger.min_gain,
    "least drop of the whole model's imbalance that is worth an update", {0});
}

template <Of<LimitOptions> T, typename F>
void visit(T& limits, F& f) {
  f("updates_per_hour", limits.updates_per_hour, "placements published", {0});
  f("moves_per_hour", limits.moves_per_hour, "expert weights fetched, over all GPUs", {0});
  f("max_moves", limits.max_moves, "of one update", {0});
  f("max_moves_per_gpu", limits.max_moves_per_gpu, "of one update, into one GPU", {0});
  f("max_layers", limits.max_layers, "of one update", {0});
  f("sources", limits.sources, "publishers of counts that are kept apart", {0});
}

template <Of<BalancerOptions> T, typename F>
void visit(T& balancer, F& f) {
  f("policy", balancer.policy,
    "incremental improves the placement in force with few moves; the others start from scratch");
  f("hierarchical", balancer.hierarchical, "whether each expert group is kept on one node");
  f("seed", balancer.seed, "the same seed and loads give the same placement");
}

template <Of<WorkerOptions> T, typename F>
void visit(T& workers, F& f) {
  f("engine", workers.engine, "the engine instance to follow; \"\": the first heard",
    {0, kMaxNameBytes});
  f("timeout", workers.timeout, "a worker silent for longer is not waited for");
  f("apply_timeout", workers.apply_timeout,
    "a placement that is not applied by then is published again");
}

template <Of<RebalancerOptions> T, typename F>
void visit(T& rebalancer, F& f) {
  f("mode", rebalancer.mode,
    "observe: only measure; shadow: also decide, and show what would be done; active: publish");
  f.section("window", rebalancer.window, "the load that it plans for");
  f.section("trigger", rebalancer.trigger, "when a new placement is worth it");
  f.section("limits", rebalancer.limits, "what updates may cost; 0: no limit");
  f.section("balancer", rebalancer.balancer, "how it places");
  f.section("workers", rebalancer.workers, "whom it follows and waits for");
}

template <Of<LogOptions> T, typename F>
void visit(T& log, F& f) {
  f("level", log.level, "what is logged: this and worse");
  f("format", log.format, "text, or json: an object a line");
}

template <Of<MetricsOptions> T, typename F>
void visit(T& metrics, F& f) {
  f("expert_bytes", metrics.expert_bytes,
    "weights of one expert of one layer, in bytes, for eplbd_moved_bytes_total; 0: not counted",
    {0});
}

template <Of<HaOptions> T, typename F>
void visit(T& ha, F& f) {
  f("etcd", ha.etcd, "etcd's members, http://HOST:PORT or https://; []: this daemon serves alone");
  f("prefix", ha.prefix, "what its keys in etcd begin with", {1, kMaxNameBytes});
  f("ttl", ha.ttl,
    "a standby takes over from a leader that is gone after so long, and up to a second",
    {std::chrono::seconds(2), std::chrono::seconds(60)});
  f("user", ha.user, "in etcd; \"\": it asks for none", {0, kMaxNameBytes});
  f("password", ha.password, "the file with that user's password");
  f("ca", ha.ca,
    "the file with the authorities that etcd's certificates are of; \"\": those that the system "
    "trusts");
  f("certificate", ha.certificate, "the file with our certificate, where etcd asks for one");
  f("key", ha.key, "the file with its secret key");
}

template <Of<SecurityOptions> T, typename F>
void visit(T& security, F& f) {
  f("curve_secret_key", security.curve_secret_key,
    "the file with the daemon's secret key; turns CURVE on for every ZeroMQ socket");
  f("authorized_keys", security.authorized_keys, "the folder with the public keys of workers");
  f("allow_plaintext_remote", security.allow_plaintext_remote,
    "true: bind beyond loopback without CURVE, on a network you trust");
}

template <Of<Config> T, typename F>
void visit(T& config, F& f) {
  f("deployment", config.deployment, "what workers name as their topic", {1, kMaxNameBytes});
  const TopologyKeys topology{config.topology, config.rebalancer.follow_shape};
  f.section("topology", topology,
            "the shape of the group: layers, logical_experts, slots, gpus, nodes, groups");
  f.section("endpoints", config.endpoints, "where workers connect to");
  f.section("http", config.http, "metrics, health, the live page and the placement, read-only");
  f.section("control", config.control, "where eplbctl finds it");
  f.section("state", config.state, "where it keeps what it must not forget");
  visit(config.rebalancer, f);
  f.section("log", config.log, "what it tells");
  f.section("metrics", config.metrics, "what metrics cannot know by themselves");
  f.section("ha", config.ha, "several daemons of one deployment, of which one leads");
  f.section("security", config.security, "CURVE, for addresses that are not loopback");
}

}  // namespace eplbd
