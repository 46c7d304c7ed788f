// The whole daemon: what operators order, over the control socket.
// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "tests/daemon/running.h"

using namespace eplbd;

namespace {

// What the worker gets once it says, under `update`, that it can run with an empty GPU.
PlacementUpdate emptied(Running& running, PlacementUpdate update) {
  while (update.gpus_down.empty()) {
    running.report_state(update.placement);
    auto next = running.next_placement(1);
    REQUIRE(next);
    update = std::move(*next);
  }
  return update;
}

}  // namespace

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

TEST_CASE("nothing is published while the mode is not active") {
  const Folder folder;
  folder.write("eplbd.yaml", config_text(folder, "mode: shadow\n"));
  Running running(folder);
  Json map = Json::array();
  for (int layer = 0; layer < 2; ++layer) map.push_back({7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4});
  for (const char* mode : {"shadow", "observe"}) {
    INFO(mode);
    CHECK(running.order("mode", {{"mode", mode}}).status == 200);
    REQUIRE_FALSE(running.next_placement(1, 20));
    for (const auto& [order, body] : {std::pair{"rebalance", Json::object()},
                                      {"rollback", Json{{"version", 0}}},
                                      {"import", Json{{"physical_to_logical_map", map}}}}) {
      const HttpAnswer answer = running.order(order, body);
      CHECK(answer.status == 409);
      CHECK_THAT(answer.body, Catch::Contains(mode) && Catch::Contains("active"));
    }
    CHECK(running.order("rebalance", {{"dry_run", true}}).status == 200);
    CHECK_THAT(running.order("gpu", {{"gpu", 1}, {"action", "drain"}}).body,
               Catch::Contains("set it to active"));
    REQUIRE_FALSE(running.next_placement(1, 20));
    CHECK(running.order("gpu", {{"gpu", 1}, {"action", "restore"}}).status == 200);
  }
  CHECK(running.status()["placement"]["version"] == 0);
}

TEST_CASE("loads are shown against the mean of the GPUs that hold something") {
  const Folder folder;
  Running running(folder);
  const std::optional<PlacementUpdate> first = running.next_placement(1);
  REQUIRE(first);
  CHECK(running.order("gpu", {{"gpu", 1}, {"action", "drain"}}).status == 200);
  running.report_state(emptied(running, *first).placement);
  REQUIRE_FALSE(running.next_placement(1, 20));  // heard to run it, and counted under it
  const Json status = running.status();
  for (const Json& ratios : {status["gpu_load_ratio"], status["layer_gpu_load_ratio"][1]}) {
    INFO(ratios);
    double sum = 0;
    for (const Json& ratio : ratios) sum += ratio.get<double>();
    CHECK(sum == Approx(3).epsilon(0.001));
    CHECK(ratios[1] == 0);
  }
}

TEST_CASE("a rollback to what cannot be says what can") {
  const Folder folder;
  Running running(folder);
  const std::optional<PlacementUpdate> update = running.next_placement(1);
  REQUIRE(update);
  CHECK_THAT(running.order("rollback", {{"version", 9}}).body, Catch::Contains("these are: 0"));
  CHECK_THAT(running.order("gpu", {{"gpu", 1}, {"action", "drain"}}).body,
             Catch::Contains("until workers say"));
  emptied(running, *update);
  CHECK_THAT(running.order("rollback", {{"version", 0}}).body,
             Catch::Contains("other GPUs were down"));
  CHECK_THAT(running.order("gpu", {{"gpu", 1}, {"action", "drain"}}).body,
             Catch::Contains("it was so before"));
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
  CHECK(running.order("mode", {{"mode", "observe"}}).status == 200);
  CHECK_THAT(running.order("reload").body, Catch::Contains("the mode stays observe"));
  CHECK(running.order("mode", {{"mode", nullptr}}).status == 200);
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
