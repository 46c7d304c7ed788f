// The whole daemon in this process, met by ZeroMQ peers and HTTP clients.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <variant>
#include <vector>
#include <zmq.hpp>

#include "config/config.h"
#include "daemon/daemon.h"
#include "daemon/formats/wire.h"
#include "daemon/log.h"
#include "tests/daemon/folder.h"
#include "tests/daemon/net/http_peer.h"

namespace eplbd {

using Json = nlohmann::json;

inline std::string config_text(const Folder& folder, const std::string& more = "") {
  return "deployment: ds\n"
         "topology: {layers: 2, logical_experts: 8, slots: 12, gpus: 4, layer_ids: [3, 4]}\n"
         "endpoints: {counts: {bind: ['tcp://127.0.0.1:*']}, placements: {bind: "
         "['tcp://127.0.0.1:*']}}\n"
         "http: {listen: '127.0.0.1:0'}\n"
         "control: {socket: '" +
         folder / "control.sock" +
         "'}\n"
         "state: {directory: '" +
         folder / "state" +
         "'}\n"
         "log: {level: error}\n"
         "trigger: {interval: 10ms, cooldown: 0ms, min_tokens_per_gpu_step: 0}\n" +
         more;
}

// A daemon with its loop on another thread, and a worker that follows it.
class Running {
 public:
  explicit Running(const Folder& folder) {
    if (!folder.has("eplbd.yaml")) folder.write("eplbd.yaml", config_text(folder));
    const Config config = read_config(folder / "eplbd.yaml");
    topology_ = config.topology;
    set_up_logging(config.log);
    daemon_ = std::make_unique<Daemon>(config, folder / "eplbd.yaml");
    thread_ = std::thread([this] { daemon_->run(); });
    counts_.connect(daemon_->counts_endpoints()[0]);
    placements_.set(zmq::sockopt::subscribe, "ds");
    placements_.connect(daemon_->placements_endpoints()[0]);
  }
  ~Running() {
    daemon_->stop();
    thread_.join();
    counts_.set(zmq::sockopt::linger, 0);
  }

  std::vector<std::string> counts_endpoints() const { return daemon_->counts_endpoints(); }
  HttpAnswer get(const std::string& path) { return HttpPeer(daemon_->http_port()).get(path); }
  Json status() { return Json::parse(get("/api/v1/status").body); }
  HttpAnswer order(const std::string& path, const Json& body = Json::object()) {
    return HttpPeer(daemon_->control_socket()).post("/v1/" + path, body.dump());
  }

  // Counts in which expert `hot` of each layer has most.
  void send_counts(size_t hot) {
    std::vector<uint32_t> counts(16, 100);
    counts[hot] = counts[8 + hot] = 2000;
    CountsReport report;
    report.source = "dp0";
    report.epoch = 1;
    report.since = 1000;
    report.ts = 1001 + static_cast<double>(sequence_);
    report.steps = 10;
    report.running = held_;
    report.counts = PackedArray<uint32_t>(std::as_bytes(std::span(counts)));
    send(encode_counts(report));
  }
  void send(const std::string& payload) {
    counts_.send(zmq::str_buffer("ds"), zmq::send_flags::sndmore);
    counts_.send(zmq::buffer(encode_sequence(sequence_++)), zmq::send_flags::sndmore);
    counts_.send(zmq::buffer(payload));
  }

  // The worker runs `map` under the last placement's name, and can run with an empty GPU.
  void report_state(const Placement& map) {
    StateReport report;
    report.source = "head";
    report.epoch = 1;
    report.ts = 1001 + static_cast<double>(sequence_);
    report.running = held_;
    report.set_map(topology_, map);
    report.inactive_gpus = true;
    send(encode_state(report));
  }

  // The next placement above what the worker holds, which it then runs.
  std::optional<PlacementUpdate> next_placement(size_t hot, int tries = 1000) {
    placements_.set(zmq::sockopt::rcvtimeo, 20);
    for (int i = 0; i < tries; ++i) {
      send_counts(hot);
      zmq::message_t frame;
      if (!placements_.recv(frame)) continue;
      (void)placements_.recv(frame);
      (void)placements_.recv(frame);
      DaemonMessage message = decode_daemon_message(as_bytes(frame.to_string_view()), topology_);
      auto* update = std::get_if<PlacementUpdate>(&message);
      if (update == nullptr || update->id <= held_) continue;
      held_ = update->id;
      return std::move(*update);
    }
    return std::nullopt;
  }

 private:
  Topology topology_;
  std::unique_ptr<Daemon> daemon_;
  std::thread thread_;
  zmq::context_t context_;
  zmq::socket_t counts_{context_, zmq::socket_type::pub};
  zmq::socket_t placements_{context_, zmq::socket_type::sub};
  uint64_t sequence_ = 0;
  PlacementId held_;
};

}  // namespace eplbd
