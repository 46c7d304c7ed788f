// The whole daemon: from counts to placements, and what it shows.
// SPDX-License-Identifier: Apache-2.0
#include "daemon/daemon.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <regex>
#include <set>

#include "daemon/store/state_file.h"
#include "tests/daemon/running.h"
#include "tests/paths.h"

using namespace eplbd;

namespace {

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

TEST_CASE("a worker's error is one short line wherever it is shown") {
  const Folder folder;
  Running running(folder);
  StateReport report;
  report.source = "dp9";
  report.epoch = 1;
  report.ts = 1000;
  report.status = WorkerStatus::failed;
  const std::string error = "out of memory\n<3>forged\x1b[2J" + std::string(5000, 'x');
  report.error = error;
  report.layers = 2;
  report.logical_experts = 8;
  report.slots = 12;
  report.gpus = 4;
  std::vector<int32_t> map;
  for (int slot = 0; slot < 24; ++slot) map.push_back(slot % 12 % 8);
  report.physical_to_logical = PackedArray<int32_t>(std::as_bytes(std::span(map)));
  REQUIRE(running.next_placement(1));
  Json group;
  for (int i = 0; i < 1000 && group.is_null(); ++i) {
    report.ts += 1;
    running.send(encode_state(report));
    group = running.status()["group"];
  }
  REQUIRE(group.is_object());
  const std::string shown = group["error"];
  CHECK_THAT(shown, Catch::StartsWith("out of memory <3>forged?[2Jxx") && Catch::EndsWith("x..."));
  CHECK(shown.size() < 600);
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

TEST_CASE("an address that another daemon has is told with what to do") {
  const Folder folder;
  const Running running(folder);
  Config config = read_config(folder / "eplbd.yaml");
  config.state.directory = folder / "other";
  CHECK_THROWS_WITH(Daemon(config, ""), Catch::Contains("control.sock: Address already in use: ") &&
                                            Catch::Contains("another eplbd"));
  config.control.socket = folder / "other.sock";
  config.endpoints.counts.bind = running.counts_endpoints();
  CHECK_THROWS_WITH(Daemon(config, ""), Catch::Contains("Is another eplbd running?"));
}

TEST_CASE("keys that cannot be read are the configuration's fault") {
  const Folder folder;
  folder.write("eplbd.yaml", config_text(folder, "security: {curve_secret_key: /nonexistent}\n"));
  CHECK_THROWS_AS(Daemon(read_config(folder / "eplbd.yaml"), ""), KeysError);
}
