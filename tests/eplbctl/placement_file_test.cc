// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/placement_file.h"

#include <catch2/catch.hpp>

#include "tests/eplbctl/temporary_file.h"

namespace eplbd {
namespace {

Topology small_topology() {
  Topology topology;
  topology.layers = 2;
  topology.logical_experts = 3;
  topology.slots = 4;
  topology.gpus = 2;
  return topology;
}

const std::vector<int32_t> kMap = {0, 1, 2, 0, 2, 1, 0, 1};

std::string error_of(const std::string& content, const Topology& topology) {
  const TemporaryFile file(content);
  try {
    read_placement(file.name(), topology);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("every format reads back what it wrote, with dense layers before") {
  Topology topology = small_topology();
  for (const bool dense_prefix : {false, true}) {
    if (dense_prefix) topology.layer_ids = {3, 5};
    const Placement placement(topology, kMap);
    for (const PlacementFormat format : {PlacementFormat::json, PlacementFormat::trtllm,
                                         PlacementFormat::vllm_ascend, PlacementFormat::npy}) {
      CAPTURE(to_string(format), dense_prefix);
      CHECK(from_name<PlacementFormat>(to_string(format)) == format);
      const TemporaryFile file(format_placement(topology, placement, format));
      CHECK(read_placement(file.name(), topology) == placement);
    }
  }
}

TEST_CASE("the texts that engines read") {
  Topology topology = small_topology();
  topology.layer_ids = {1, 2};
  const Placement placement(topology, kMap);
  CHECK(format_placement(topology, placement, PlacementFormat::json) ==
        "{\"physical_to_logical_map\": [\n[0, 1, 2, 0],\n[0, 1, 2, 0],\n[2, 1, 0, 1]\n]}\n");
  CHECK(format_placement(topology, placement, PlacementFormat::trtllm) ==
        "num_slots: 4\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n"
        "  1: [0, 1, 2, 0]\n  2: [2, 1, 0, 1]\n");
  CHECK(format_placement(topology, placement, PlacementFormat::vllm_ascend) ==
        "{\"moe_layer_count\": 2, \"layer_list\": [\n"
        "{\"layer_id\": 0, \"device_count\": 2, \"device_list\": [\n"
        " {\"device_id\": 0, \"device_expert\": [0, 1]},\n"
        " {\"device_id\": 1, \"device_expert\": [2, 0]}]},\n"
        "{\"layer_id\": 1, \"device_count\": 2, \"device_list\": [\n"
        " {\"device_id\": 0, \"device_expert\": [2, 1]},\n"
        " {\"device_id\": 1, \"device_expert\": [0, 1]}]}\n]}\n");
}

TEST_CASE("a GPU that holds nothing is only said in npy") {
  const Topology topology = small_topology();
  Topology wide = topology;
  wide.gpus = 4;
  const Placement placement(wide, {0, 1, 2, -1, 2, 1, 0, -1});
  CHECK_THROWS_WITH(format_placement(wide, placement, PlacementFormat::json),
                    Catch::Contains("holds nothing"));
  CHECK_FALSE(format_placement(wide, placement, PlacementFormat::npy).empty());
}

TEST_CASE("what is no placement of this shape is refused with its place") {
  using Catch::Contains;
  Topology topology = small_topology();
  const auto error = [&](const std::string& content) { return error_of(content, topology); };
  CHECK(error("[[0,1,2,0],[2,1,0,1]]").empty());
  CHECK_THAT(error(""), Contains("empty"));
  CHECK_THAT(error("\"\""), Contains("line 1: it has no columns"));
  CHECK_THAT(error("[[0,1,2,0]]"), Contains("1 layers, not 2"));
  CHECK_THAT(error("[[0,1,2],[0,1,2]]"), Contains("3 slots a layer, not 4"));
  CHECK_THAT(error("[[0,1,2,3],[2,1,0,1]]"), Contains("3"));
  CHECK_THAT(error("[[0,1,1,0],[2,1,0,1]]"), Contains("2"));
  CHECK_THAT(error("[[0,1,2,0.5],[2,1,0,1]]"), Contains("0.5"));
  CHECK_THAT(error("{\"map\": 1}"), Contains("physical_to_logical_map"));
  CHECK_THAT(error("num_slots: 4\nlayer_updates_per_iter: 2\n"), Contains("online configuration"));
  CHECK_THAT(error("layers: 4\n"), Contains("initial_global_assignments"));
  CHECK(error("0,1,2,0\n2,1,0,1\n").empty());
  CHECK_THAT(error("0,1,2\n2,1,0\n"), Contains("3 slots a layer, not 4"));
  CHECK_THAT(error("[0,1,2,0]\n[2,1,0,1]\n"), Contains("JSON Lines"));
  CHECK_THAT(error("num_slots: 4\ninitial_global_assignments:\n  0: [0, 1, 2, 0]\n  4: [2, 1]\n"),
             Contains("no layer 1"));
  CHECK_THAT(error("initial_global_assignments:\n  0: [0, 1, 2, 0]\n  1: [2, 1]\n"),
             Contains("line 3: layer 1 has 2 slots"));
  CHECK_THAT(error("initial_global_assignments:\n  0: [0, 1, 2, x]\n  1: [2, 1, 0, 1]\n"),
             Contains(":2: "));
  CHECK_THAT(error("{\"layer_list\": [{\"layer_id\": 1}]}"), Contains("layer_id must be"));
  CHECK_THAT(error("{\"layer_list\": [{\"layer_id\": 0, \"device_list\": "
                   "[{\"device_id\": 0, \"device_expert\": [0]}]}]}"),
             Contains("device_list[0] has 1 experts, not 2"));
  CHECK_THAT(error("num_slots: 16\ninitial_global_assignments:\n  0: [0, 1, 2, 0]\n"
                   "  1: [2, 1, 0, 1]\n"),
             Contains("line 1: num_slots must be 4"));
  const std::string devices =
      "\"device_list\": [{\"device_id\": 0, \"device_expert\": [0, 1]}, "
      "{\"device_id\": 1, \"device_expert\": [2, 0]}]}";
  const std::string layer_list = "\"layer_list\": [{\"layer_id\": 0, " + devices +
                                 ", {\"layer_id\": 1, \"device_count\": 3, " + devices + "]}";
  CHECK_THAT(error("{\"moe_layer_count\": 3, " + layer_list),
             Contains("moe_layer_count is 3, but there are 2"));
  CHECK_THAT(error("{" + layer_list), Contains("layer_list[1].device_count is 3, but there are 2"));
  CHECK_THAT(error("{\"layer_list\": 7}"), Contains("is no list"));
}

TEST_CASE("a map that breaks a rule is told with the model's own layer") {
  Topology topology = small_topology();
  topology.layer_ids = {3, 5};
  CHECK_THAT(error_of("[[0, 1, 2, 0], [2, 1, 1, 1]]", topology),
             Catch::Contains("layer 5") && Catch::Contains("expert 0"));
}

}  // namespace
}  // namespace eplbd
