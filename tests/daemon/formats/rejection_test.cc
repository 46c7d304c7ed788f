// SPDX-License-Identifier: Apache-2.0
#include "daemon/formats/rejection.h"

#include <catch2/catch.hpp>

#include "daemon/formats/msgpack_map.h"
#include "daemon/formats/wire.h"
#include "tests/core/shapes.h"

namespace eplbd {
namespace {

const Topology kTopology = make_topology(4, 16, 20, 4);

// What is said of a counts message in which `key` is `value`.
template <typename Add>
std::string said(std::string_view changed, Add add) {
  MsgpackMap map;
  const std::vector<uint32_t> counts(4 * 16, 1);
  const auto put = [&](std::string_view key, const auto& usual) {
    if (key != changed) map.add(key, usual);
  };
  put("type", std::string("counts"));
  put("v", 1);
  put("source", std::string("dp3"));
  put("epoch", 5);
  put("since", 1000.0);
  put("ts", 1001.0);
  put("steps", 3);
  put("term", 0);
  put("version", 0);
  if (changed != "counts") map.add_array("counts", std::span<const uint32_t>(counts));
  add(map);
  const std::string payload = map.finish();
  const WorkerMessage message =
      decode_worker_message(as_bytes(encode_sequence(0)), as_bytes(payload), kTopology);
  const auto* rejection = std::get_if<Rejection>(&message);
  if (rejection == nullptr) return "taken";
  CHECK(rejection->source == (changed == "source" ? "" : "dp3"));
  return explain(*rejection, kTopology);
}

std::string said_of_counts(size_t bytes) {
  const std::vector<char> counts(bytes, 0);
  return said("counts",
              [&](MsgpackMap& map) { map.add_array("counts", std::span<const char>(counts)); });
}

}  // namespace

TEST_CASE("an array of the wrong size is told with both sizes and what it may be") {
  CHECK(said_of_counts(256) == "taken");
  CHECK(said_of_counts(512) == "counts has 512 bytes, wants 4 x 16 x 4 = 256: int64?");
  CHECK(said_of_counts(320) == "counts has 320 bytes, wants 4 x 16 x 4 = 256: per slot?");
  CHECK(said_of_counts(640) == "counts has 640 bytes, wants 4 x 16 x 4 = 256: int64, per slot?");
  CHECK(said_of_counts(128) == "counts has 128 bytes, wants 4 x 16 x 4 = 256: 16 bits each?");
  CHECK(said_of_counts(0) == "counts has 0 bytes, wants 4 x 16 x 4 = 256: nothing in it?");
  CHECK(said_of_counts(336) == "counts has 336 bytes, wants 4 x 16 x 4 = 256");
}

TEST_CASE(
    "a key that is missing, of another type or out of its range is named, with what it is to be") {
  CHECK(said("epoch", [](MsgpackMap&) {}) == "epoch is missing");
  CHECK(said("steps", [](MsgpackMap& map) { map.add("steps", -1); }) ==
        "steps has the wrong type, wants an integer >= 0");
  CHECK(said("counts", [](MsgpackMap& map) { map.add("counts", std::vector<int>(64, 1)); }) ==
        "counts has the wrong type, wants bin: the bytes of a little-endian array");
  CHECK(said("kind", [](MsgpackMap& map) { map.add("kind", std::string("sum")); }) ==
        "kind is out of its range, wants delta or cumulative");
  CHECK(said("source", [](MsgpackMap& map) { map.add("source", std::string()); }) ==
        "source is out of its range, wants 1 to 128 bytes of printable UTF-8");
  CHECK(said("ts", [](MsgpackMap& map) { map.add("ts", HUGE_VAL); }) == "ts is not finite");
}

TEST_CASE("every reason has its words") {
  for (size_t reason = 0; reason < kCount<RejectReason>; ++reason) {
    const auto value = static_cast<RejectReason>(reason);
    INFO(to_string(value));
    CHECK(explain({value, "dp3", "counts", "a range", 8, 16}, kTopology).size() > 8);
    CHECK(explain({value}, kTopology).size() > 8);
  }
}

}  // namespace eplbd
