// The whole daemon in this process, met by ZeroMQ peers and HTTP clients.
// SPDX-License-Identifier: Apache-2.0
#include "daemon/daemon.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <thread>
#include <zmq.hpp>

#include "daemon/log.h"
#include "daemon/state_file.h"
#include "daemon/wire.h"
#include "tests/daemon/folder.h"
#include "tests/daemon/http_peer.h"

using namespace eplbd;
using Json = nlohmann::json;

namespace {

std::string config_text(const Folder& folder, const std::string& more = "") {
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
  explicit Running(const Folder& folder) : folder_(folder) {
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

  // The next placement above what the worker holds, which it then runs.
  std::optional<PlacementUpdate> next_placement(size_t hot) {
    placements_.set(zmq::sockopt::rcvtimeo, 20);
    for (int i = 0; i < 1000; ++i) {
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
  const Folder& folder_;
  Topology topology_;
  std::unique_ptr<Daemon> daemon_;
  std::thread thread_;
  zmq::context_t context_;
  zmq::socket_t counts_{context_, zmq::socket_type::pub};
  zmq::socket_t placements_{context_, zmq::socket_type::sub};
  uint64_t sequence_ = 0;
  PlacementId held_;
};

// The keys that the first table of a section of docs/http.md lists.
std::set<std::string> documented_keys(const std::string& section) {
  std::ifstream file(std::string(EPLBD_SOURCE_DIR) + "/docs/http.md");
  std::set<std::string> keys;
  bool inside = false;
  const std::regex word("`([a-z_]+)`");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("## ", 0) == 0) inside = line == "## " + section;
    if (!inside || line.rfind("| `", 0) != 0) continue;
    const std::string cell = line.substr(1, line.find('|', 1) - 1);
    for (std::sregex_iterator it(cell.begin(), cell.end(), word), end; it != end; ++it) {
      keys.insert((*it)[1]);
    }
  }
  return keys;
}

}  // namespace

TEST_CASE("counts go in, a placement comes out, and the next daemon goes on from it") {
  const Folder folder;
  PlacementUpdate first;
  {
    Running running(folder);
    const auto update = running.next_placement(1);
    REQUIRE(update);
    first = *update;
    CHECK(first.id.version == 1);
    CHECK(first.imbalance_after < first.imbalance_before);
    CHECK(first.reason == UpdateReason::threshold);
    const Json placement = Json::parse(running.get("/api/v1/placement").body);
    CHECK(placement["term"] == first.id.term);
    CHECK(placement["physical_to_logical_map"][1][2] == first.placement.layer(1)[2]);
    CHECK(placement["layer_ids"] == Json({3, 4}));
  }
  Running again(folder);
  const Json placement = again.status()["placement"];
  CHECK(placement["term"] == first.id.term);
  CHECK(placement["version"] == first.id.version);
}

TEST_CASE("the status has the keys that are documented, and no others") {
  const Folder folder;
  Running running(folder);
  REQUIRE(running.next_placement(1));
  const Json status = running.status();
  std::set<std::string> keys;
  for (const auto& [key, value] : status.items()) keys.insert(key);
  CHECK(keys == documented_keys("/api/v1/status"));
  CHECK(status["layer_gpu_load_ratio"].size() == 2);
  CHECK(status["layer_gpu_load_ratio"][0].size() == 4);
  CHECK(status["gpu_load_ratio"].size() == 4);
  CHECK(status["workers"][0]["source"] == "dp0");
  CHECK(status["updates"][0]["moved"].size() == status["updates"][0]["moves"]);
  CHECK(status["imbalance"] >= 1.0);
  CHECK(status["imbalance_initial"] >= status["imbalance"]);
}

TEST_CASE("every page answers, and only to GET and HEAD") {
  const Folder folder;
  Running running(folder);
  for (const char* path :
       {"/", "/metrics", "/healthz", "/readyz", "/api/v1/status", "/api/v1/placement",
        "/api/v1/placement?format=json", "/api/v1/placement?format=trtllm",
        "/api/v1/placement?format=npy", "/api/v1/placement?format=vllm-ascend"}) {
    INFO(path);
    const HttpAnswer answer = running.get(path);
    CHECK(answer.status == 200);
    CHECK_FALSE(answer.body.empty());
  }
  CHECK(running.get("/nothing").status == 404);
  CHECK(running.get("/v1/pause").status == 404);  // orders are not for TCP
  CHECK(running.get("/api/v1/placement?format=pt").status == 400);
  CHECK_THAT(running.get("/api/v1/placement").head, Catch::Contains("ETag: \"0.0\""));
}

TEST_CASE("orders take effect before they are answered") {
  const Folder folder;
  Running running(folder);
  CHECK(running.order("pause", {{"seconds", 60}}).status == 200);
  CHECK(running.status()["paused"] == true);
  CHECK(running.order("resume").status == 200);
  CHECK(running.status()["paused"] == false);
  CHECK(running.order("mode", {{"mode", "shadow"}}).status == 200);
  CHECK(running.status()["mode"] == "shadow");
  CHECK(running.order("mode", {{"mode", nullptr}}).status == 200);
  CHECK(running.status()["mode"] == "active");
  CHECK(running.order("rebalance").status == 409);  // there is nothing to plan from
  CHECK(running.order("rollback").status == 409);
  CHECK(running.order("gpu", {{"gpu", 1}, {"action", "drain"}}).status == 200);
  CHECK(running.status()["gpus_down"] == Json({1}));
  CHECK(running.order("gpu", {{"gpu", 1}, {"action", "restore"}}).status == 200);
}

TEST_CASE("what is ordered wrongly is told so") {
  const Folder folder;
  Running running(folder);
  const std::vector<std::pair<std::string, Json>> wrong = {
      {"pause", {{"seconds", -1}}},    {"pause", {{"seconds", "1h"}}},
      {"pause", {{"hours", 1}}},       {"mode", {{"mode", "auto"}}},
      {"rollback", {{"version", -1}}}, {"gpu", {{"gpu", 4}, {"action", "drain"}}},
      {"gpu", {{"gpu", 1}}},           {"import", Json::object()},
      {"rebalance", {{"dry_run", 1}}}, {"import", {{"physical_to_logical_map", {{1}}}}},
  };
  for (const auto& [path, body] : wrong) {
    INFO(path << " " << body);
    const HttpAnswer answer = running.order(path, body);
    CHECK(answer.status == 400);
    CHECK(Json::parse(answer.body)["done"] == false);
    CHECK_FALSE(Json::parse(answer.body)["detail"].get<std::string>().empty());
  }
  CHECK(running.order("nothing").status == 404);
}

TEST_CASE("an imported placement is published and held") {
  const Folder folder;
  Running running(folder);
  Json map = Json::array();
  for (int layer = 0; layer < 2; ++layer) map.push_back({0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3});
  const Json same = Json::parse(running.order("import", {{"physical_to_logical_map", map}}).body);
  INFO(same);
  map[1] = {7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4};
  const HttpAnswer answer = running.order("import", {{"physical_to_logical_map", map}});
  CHECK(answer.status == 200);
  CHECK(Json::parse(answer.body)["reason"] == "imported");
  CHECK(running.status()["paused"] == true);
  map[1] = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7};  // experts without a slot
  CHECK(running.order("import", {{"physical_to_logical_map", map}}).status == 409);
}

TEST_CASE("a reload takes what it may, and refuses the rest") {
  const Folder folder;
  Running running(folder);
  folder.write("eplbd.yaml", config_text(folder, "mode: shadow\n"));
  CHECK(running.order("reload").status == 200);
  CHECK(running.status()["mode"] == "shadow");
  folder.write("eplbd.yaml", config_text(folder, "mode: active\nha: {ttl: 9s}\n"));
  const HttpAnswer fixed = running.order("reload");
  CHECK(fixed.status == 409);
  CHECK_THAT(fixed.body, Catch::Contains("cannot change ha"));
  folder.write("eplbd.yaml", "mode: [\n");
  CHECK(running.order("reload").status == 409);
  CHECK(running.status()["mode"] == "shadow");
  CHECK_THAT(running.get("/metrics").body,
             Catch::Contains("eplbd_config_last_reload_successful{deployment=\"ds\"} 0"));
}

TEST_CASE("a recorder reads what came since it began") {
  const Folder folder;
  Running running(folder);
  HttpPeer peer(folder / "control.sock");
  const auto totals = [&] {
    const HttpAnswer answer = peer.get("/v1/counts");
    REQUIRE(answer.status == 200);
    std::vector<uint64_t> cells(16);
    REQUIRE(answer.body.size() > cells.size() * 8);
    std::memcpy(cells.data(), answer.body.data() + answer.body.size() - cells.size() * 8,
                cells.size() * 8);
    return cells;
  };
  CHECK(totals() == std::vector<uint64_t>(16, 0));
  const auto update = running.next_placement(1);
  REQUIRE(update);
  const std::vector<uint64_t> after = totals();
  CHECK(after[0] > 0);
  CHECK(after[1] == 20 * after[0]);
}

TEST_CASE("two daemons do not share a state directory") {
  const Folder folder;
  const Running running(folder);
  CHECK_THROWS_AS(Daemon(read_config(folder / "eplbd.yaml"), ""), StateHeldError);
}
