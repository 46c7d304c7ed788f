// SPDX-License-Identifier: Apache-2.0
#include "config/config.h"
#include "tests/paths.h"

#include <catch2/catch.hpp>
#include <string>

namespace eplbd {
namespace {

using namespace std::chrono_literals;

const std::string kMinimal =
    "deployment: d\ntopology: {layers: 2, logical_experts: 4, slots: 8, gpus: 2}\n";

Config parse(const std::string& more) { return parse_config(kMinimal + more, "F"); }

TEST_CASE("Deployment and topology are enough; the rest has its defaults", "[config]") {
  const Config config = parse("");
  CHECK(config.deployment == "d");
  CHECK(config.topology.layers == 2);
  CHECK(config.topology.slots_per_gpu() == 4);
  CHECK(config.topology.nodes == 1);
  CHECK(config.topology.groups == 1);
  CHECK(print_config(config) ==
        "deployment: \"d\"\n"
        "topology:\n"
        "  layers: 2\n  logical_experts: 4\n  slots: 8\n  gpus: 2\n  nodes: 1\n  groups: 1\n"
        "  layer_ids: []\n  gpu_speeds: []\n  follow: false\n"
        "endpoints:\n"
        "  counts:\n    bind: [\"tcp://127.0.0.1:15557\"]\n"
        "  placements:\n    bind: [\"tcp://127.0.0.1:15657\"]\n"
        "http:\n  listen: \"127.0.0.1:9877\"\n  allow_remote: false\n"
        "control:\n  socket: \"\"\n"
        "state:\n  directory: \"\"\n"
        "mode: active\n"
        "window:\n  half_life: auto\n"
        "trigger:\n  imbalance: 1.1\n  settle: 1.05\n  interval: 100ms\n  cooldown: 5s\n"
        "  min_tokens: 0\n  min_tokens_per_gpu_step: 64\n  min_gain: 0.01\n"
        "limits:\n  updates_per_hour: 120\n  moves_per_hour: 0\n  max_moves: 0\n"
        "  max_moves_per_gpu: 0\n  max_layers: 0\n  sources: 4096\n"
        "balancer:\n  policy: incremental\n  hierarchical: auto\n  seed: 0\n"
        "workers:\n  engine: \"\"\n  timeout: 30s\n  apply_timeout: 2m\n"
        "log:\n  level: info\n  format: text\n"
        "metrics:\n  expert_bytes: 0\n"
        "ha:\n  etcd: []\n  prefix: \"/eplbd\"\n  ttl: 3s\n  user: \"\"\n  password: \"\"\n"
        "  ca: \"\"\n  certificate: \"\"\n  key: \"\"\n"
        "security:\n  curve_secret_key: \"\"\n  authorized_keys: \"\"\n"
        "  allow_plaintext_remote: false\n");
}

const char kEverything[] = R"(deployment: "näme \"x\" \\ /"
topology:
  layers: 2
  logical_experts: 4
  slots: 8
  gpus: 4
  nodes: 2
  groups: 2
  layer_ids: [3, 5]
  gpu_speeds: [1, 0.8, 1.25e-1, 3]
  follow: true
endpoints:
  counts: {bind: ["tcp://127.0.0.1:*", "ipc:///run/eplbd/counts"]}
  placements: {bind: ["tcp://[::1]:0", "tcp://*:4000"]}
http: {listen: "[::]:0", allow_remote: true}
control: {socket: /tmp/c}
state: {directory: /tmp/s}
mode: shadow
window: {half_life: 1.5s}
trigger: {imbalance: 1.3, settle: 1, interval: 1ms, cooldown: 0s, min_tokens: 7,
          min_tokens_per_gpu_step: 0, min_gain: 0}
limits: {updates_per_hour: 1, moves_per_hour: 2, max_moves: 3, max_moves_per_gpu: 4,
         max_layers: 5, sources: 6}
balancer: {policy: joint, hierarchical: false, seed: 18446744073709551615}
workers: {engine: prod-7, timeout: 90s, apply_timeout: 30d}
log: {level: debug, format: json}
metrics: {expert_bytes: 44040192}
ha: {etcd: ["http://127.0.0.1:2379", "https://[::1]:2379"], prefix: /other, ttl: 60s, user: u,
  password: /p, ca: /ca, certificate: /cert, key: /key}
security: {curve_secret_key: /k, authorized_keys: /a, allow_plaintext_remote: true}
)";

TEST_CASE("Every key is read", "[config]") {
  const Config config = parse_config(kEverything, "F");
  CHECK(config.deployment == "näme \"x\" \\ /");
  CHECK(config.topology.layer_ids == std::vector<int32_t>{3, 5});
  CHECK(config.topology.gpu_speeds == std::vector<double>{1, 0.8, 0.125, 3});
  CHECK(config.endpoints.counts.bind ==
        std::vector<std::string>{"tcp://127.0.0.1:*", "ipc:///run/eplbd/counts"});
  CHECK(config.endpoints.placements.bind ==
        std::vector<std::string>{"tcp://[::1]:0", "tcp://*:4000"});
  CHECK(config.http.listen == "[::]:0");
  CHECK(config.http.allow_remote);
  CHECK(config.control.socket == "/tmp/c");
  CHECK(config.state.directory == "/tmp/s");
  const RebalancerOptions& options = config.rebalancer;
  CHECK(options.mode == Mode::shadow);
  CHECK(options.follow_shape);
  CHECK(options.window.half_life == Duration(1500ms));
  CHECK(options.trigger.imbalance == 1.3);
  CHECK(options.trigger.settle == 1.0);
  CHECK(options.trigger.interval == Duration(1ms));
  CHECK(options.trigger.cooldown == Duration(0));
  CHECK(options.trigger.min_tokens == 7);
  CHECK(options.trigger.min_tokens_per_gpu_step == 0);
  CHECK(options.trigger.min_gain == 0.0);
  CHECK(options.limits.updates_per_hour == 1);
  CHECK(options.limits.moves_per_hour == 2);
  CHECK(options.limits.max_moves == 3);
  CHECK(options.limits.max_moves_per_gpu == 4);
  CHECK(options.limits.max_layers == 5);
  CHECK(options.limits.sources == 6);
  CHECK(options.balancer.policy == Policy::joint);
  CHECK(options.balancer.hierarchical == Hierarchical::no);
  CHECK(options.balancer.seed == 18446744073709551615u);
  CHECK(options.workers.engine == "prod-7");
  CHECK(options.workers.timeout == Duration(90s));
  CHECK(options.workers.apply_timeout == Duration(std::chrono::hours(720)));
  CHECK(config.log.level == LogLevel::debug);
  CHECK(config.log.format == LogFormat::json);
  CHECK(config.metrics.expert_bytes == 44'040'192);
  CHECK(config.ha.etcd == std::vector<std::string>{"http://127.0.0.1:2379", "https://[::1]:2379"});
  CHECK(config.ha.user == "u");
  CHECK(config.ha.certificate == "/cert");
  CHECK(config.ha.prefix == "/other");
  CHECK(config.ha.ttl == Duration(60s));
  CHECK(config.security.curve_secret_key == "/k");
  CHECK(config.security.authorized_keys == "/a");
  CHECK(config.security.allow_plaintext_remote);
}

TEST_CASE("What is printed reads back as the same configuration", "[config]") {
  for (const std::string& text : {kMinimal, std::string(kEverything)}) {
    const std::string printed = print_config(parse_config(text, "F"));
    CHECK(print_config(parse_config(printed, "printed")) == printed);
  }
}

TEST_CASE("Durations carry a unit", "[config]") {
  const std::pair<const char*, Duration> durations[] = {
      {"1ms", 1ms}, {"100ms", 100ms}, {"0.5s", 500ms}, {"30s", 30s}, {"\"30s\"", 30s},
      {"5m", 5min}, {"2h", 2h},       {"1.5h", 90min}, {"30d", 720h}};
  for (const auto& [text, duration] : durations) {
    INFO(text);
    CHECK(parse(std::string("workers: {timeout: ") + text + "}").rebalancer.workers.timeout ==
          duration);
  }
  CHECK_THROWS_AS(parse("workers: {timeout: 0s}"), ConfigError);
  CHECK_THROWS_AS(parse("workers: {timeout: 30}"), ConfigError);
  CHECK_THROWS_AS(parse("trigger: {cooldown: 0}"), ConfigError);
}

TEST_CASE("Sections may be empty, values aliases, the file one with a byte order mark",
          "[config]") {
  CHECK(parse("trigger:\nlimits: {}\n").rebalancer.trigger.imbalance == 1.10);
  CHECK(parse("workers: {timeout: &t 7s, apply_timeout: *t}").rebalancer.workers.apply_timeout ==
        Duration(7s));
  CHECK(parse_config("\xEF\xBB\xBF" + kMinimal, "F").deployment == "d");
  std::string dos = kMinimal + "mode: observe\n";
  for (size_t i = 0; (i = dos.find('\n', i)) != dos.npos; i += 2) dos.replace(i, 1, "\r\n");
  CHECK(parse_config(dos, "F").rebalancer.mode == Mode::observe);
}

TEST_CASE("Names are up to 128 bytes, in any script", "[config]") {
  const auto named = [](const std::string& name) {
    return parse_config("deployment: " + name + kMinimal.substr(kMinimal.find('\n')), "F");
  };
  CHECK(named("deepseek-ai/DeepSeek-V3").deployment == "deepseek-ai/DeepSeek-V3");
  CHECK(named("7").deployment == "7");
  CHECK(named(std::string(128, 'x')).deployment.size() == 128);
  std::string script;
  for (int i = 0; i < 32; ++i) script += "𝕏";  // 4 bytes each
  CHECK(named(script).deployment == script);
  CHECK_THROWS_AS(named(script + "x"), ConfigError);
}

TEST_CASE("An address beyond loopback needs keys or an explicit word", "[config]") {
  const std::string remote = "endpoints: {counts: {bind: [\"tcp://*:1\"]}}\n";
  CHECK_THROWS_AS(parse(remote), ConfigError);
  CHECK_NOTHROW(parse(remote + "security: {allow_plaintext_remote: true}"));
  CHECK_NOTHROW(parse(remote + "security: {curve_secret_key: /k, authorized_keys: /a}"));
  CHECK_THROWS_AS(parse("http: {listen: \"0.0.0.0:1\"}"), ConfigError);
  CHECK_NOTHROW(parse("http: {listen: \"0.0.0.0:1\", allow_remote: true}"));
}

TEST_CASE("Rules alone may leave deployment and topology out, or have them", "[config]") {
  const Config rules = parse_config("mode: shadow\n", "F", Require::rules_only);
  CHECK(rules.rebalancer.mode == Mode::shadow);
  CHECK(rules.deployment.empty());
  CHECK(parse_config("", "F", Require::rules_only).rebalancer.trigger.imbalance == 1.10);
  CHECK(parse_config(kEverything, "F", Require::rules_only).topology.layers == 2);
  CHECK(parse_config("topology: {nodes: 2}", "F", Require::rules_only).topology.nodes == 2);
  CHECK_THROWS_AS(parse_config("topology: {nodez: 2}", "F", Require::rules_only), ConfigError);
  CHECK_THROWS_AS(parse_config("modes: shadow", "F", Require::rules_only), ConfigError);
}

TEST_CASE("Only what a reload takes may differ", "[config]") {
  const Config running = parse("");
  const char* reloadable =
      "mode: shadow\nwindow: {half_life: 3s}\ntrigger: {cooldown: 9s}\nlimits: {max_moves: 3}\n"
      "balancer: {policy: joint}\nworkers: {timeout: 3s}\nlog: {level: debug}\n";
  CHECK(unreloadable_changes(running, parse(reloadable)).empty());
  Config follows = running;
  follows.rebalancer.follow_shape = true;
  CHECK(unreloadable_changes(running, follows).empty());
  CHECK(unreloadable_changes(running, parse_config(kEverything, "F")) ==
        std::vector<std::string>{"deployment",
                                 "topology.gpus",
                                 "topology.nodes",
                                 "topology.groups",
                                 "topology.layer_ids",
                                 "topology.gpu_speeds",
                                 "endpoints.counts.bind",
                                 "endpoints.placements.bind",
                                 "http.listen",
                                 "http.allow_remote",
                                 "control.socket",
                                 "state.directory",
                                 "metrics.expert_bytes",
                                 "ha.etcd",
                                 "ha.prefix",
                                 "ha.ttl",
                                 "ha.user",
                                 "ha.password",
                                 "ha.ca",
                                 "ha.certificate",
                                 "ha.key",
                                 "security.curve_secret_key",
                                 "security.authorized_keys",
                                 "security.allow_plaintext_remote"});
}

TEST_CASE("The shipped file is the defaults around DeepSeek-V3's shape, and measures only",
          "[config]") {
  const Config shipped = read_config(EPLBD_SOURCE_DIR "/config/eplbd.yaml");
  Config defaults;
  defaults.deployment = "deepseek-v3-decode";
  defaults.topology = shipped.topology;
  defaults.rebalancer.mode = Mode::observe;
  CHECK(print_config(shipped) == print_config(defaults));
  CHECK(shipped.topology.layers == 58);
  CHECK(shipped.topology.logical_experts == 256);
  CHECK(shipped.topology.slots == 288);
  CHECK(shipped.topology.gpus == 32);
  CHECK(shipped.topology.nodes == 4);
  CHECK(shipped.topology.groups == 8);
  CHECK(shipped.topology.layer_id(0) == 3);
  CHECK(shipped.topology.layer_id(57) == 60);
}

}  // namespace
}  // namespace eplbd
