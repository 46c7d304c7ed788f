// The vectors of docs/wire.md: bytes of the first release that every later one must read. The same
// bytes are checked from Python in clients/python/tests.
// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "daemon/formats/wire.h"
#include "tests/paths.h"

namespace eplbd {
namespace {

const Topology kShape{2, 4, 6, 2, 1, 1, {}, {}};
const std::vector<int32_t> kMap = {0, 1, 3, 2, 3, 0, 0, 1, 2, 3, 0, 1};
const std::string kSequence = encode_sequence(258);

// The bytes of the ```hex block that follows the line `NAME` in docs/wire.md.
std::string golden(const std::string& name) {
  std::ifstream file(EPLBD_SOURCE_DIR "/docs/wire.md");
  std::string line;
  while (std::getline(file, line) && line != "`" + name + "`") {
  }
  while (std::getline(file, line) && line != "```hex") {
  }
  std::string bytes;
  while (std::getline(file, line) && line != "```") {
    std::istringstream numbers(line);
    for (unsigned byte = 0; numbers >> std::hex >> byte;) bytes.push_back(static_cast<char>(byte));
  }
  REQUIRE_FALSE(bytes.empty());
  return bytes;
}

template <typename T>
std::vector<T> values_of(const PackedArray<T>& array) {
  std::vector<T> values(array.size());
  array.copy_to(values);
  return values;
}

template <typename Report>
Report decoded(const std::string& bytes) {
  const auto message = decode_worker_message(as_bytes(kSequence), as_bytes(bytes), kShape);
  REQUIRE(std::holds_alternative<Report>(message));
  return std::get<Report>(message);
}

}  // namespace

TEST_CASE("golden: a sequence is 8 bytes, big-endian") {
  CHECK(kSequence == std::string("\0\0\0\0\0\0\1\2", 8));
  CHECK(decode_sequence(as_bytes(kSequence)) == 258);
}

TEST_CASE("golden: counts") {
  const std::string bytes = golden("counts");
  const auto report = decoded<CountsReport>(bytes);
  CHECK(report.source == "dp3");
  CHECK(report.engine == "");
  CHECK(report.sequence == 258);
  CHECK(report.epoch == 1763856000000000000);
  CHECK(report.since == 1763856000.0);
  CHECK(report.ts == 1763856012.5);
  CHECK(report.steps == 40);
  CHECK(report.running == PlacementId{1763856001, 2});
  CHECK(report.cumulative);
  CHECK_FALSE(report.global);
  CHECK(values_of(report.counts) ==
        std::vector<uint32_t>{7, 1, 0, 300, 70000, std::numeric_limits<uint32_t>::max(), 2, 5});
  CHECK(values_of(report.gpu_tokens) == std::vector<uint32_t>{150, 158, 35001, 35006});
  CHECK(encode_counts(report) == bytes);
}

TEST_CASE("golden: counts with the required keys alone") {
  const std::string bytes = golden("counts-minimal");
  const auto report = decoded<CountsReport>(bytes);
  CHECK(report.source == "r");
  CHECK(report.epoch == 1);
  CHECK(report.since == 1.5);
  CHECK(report.ts == 2.5);
  CHECK(report.steps == 0);
  CHECK(report.running == PlacementId{0, 0});
  CHECK_FALSE(report.cumulative);
  CHECK_FALSE(report.global);
  CHECK(values_of(report.counts) == std::vector<uint32_t>(8, 0));
  CHECK(report.gpu_tokens.empty());
}

TEST_CASE("golden: state") {
  const std::string bytes = golden("state");
  const auto report = decoded<StateReport>(bytes);
  CHECK(report.source == "dp0");
  CHECK(report.engine == "decode-7");
  CHECK(report.epoch == 1763856000000000000);
  CHECK(report.ts == 1763856013.25);
  CHECK(report.running == PlacementId{1763856001, 2});
  CHECK(report.status == WorkerStatus::applied);
  CHECK(report.layers_done == -1);
  CHECK(report.apply_seconds == 1.5);
  CHECK(report.error == "");
  CHECK(report.layers == 2);
  CHECK(report.logical_experts == 4);
  CHECK(report.slots == 6);
  CHECK(report.gpus == 2);
  CHECK(values_of(report.physical_to_logical) == kMap);
  CHECK(encode_state(report) == bytes);
}

TEST_CASE("golden: placement") {
  const std::string bytes = golden("placement");
  const auto message = decode_daemon_message(as_bytes(bytes), kShape);
  REQUIRE(std::holds_alternative<PlacementUpdate>(message));
  const auto& update = std::get<PlacementUpdate>(message);
  CHECK(update.id == PlacementId{1763856001, 2});
  CHECK(update.base == PlacementId{1763856001, 1});
  CHECK(update.unix_seconds == 1763856011.75);
  CHECK(update.reason == UpdateReason::threshold);
  CHECK(update.placement.map() == kMap);
  CHECK(update.changed_layers == std::vector<int32_t>{0});
  CHECK(update.moves == std::vector<Move>{{0, 2, 3, 3}, {0, 3, 2, 2}});
  CHECK(update.gpus_down.empty());
  CHECK(update.imbalance_before == 1.625);
  CHECK(update.imbalance_after == 1.03125);
  CHECK(encode_placement(update, kShape) == bytes);
}

TEST_CASE("golden: heartbeat") {
  const std::string bytes = golden("heartbeat");
  const auto message = decode_daemon_message(as_bytes(bytes), kShape);
  REQUIRE(std::holds_alternative<Heartbeat>(message));
  const auto& heartbeat = std::get<Heartbeat>(message);
  CHECK(heartbeat.id == PlacementId{1763856001, 2});
  CHECK(heartbeat.unix_seconds == 1763856014.0);
  CHECK(heartbeat.mode == Mode::active);
  CHECK(encode_heartbeat(heartbeat) == bytes);
}

}  // namespace eplbd
