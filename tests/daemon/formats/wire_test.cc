// SPDX-License-Identifier: Apache-2.0
#include "daemon/formats/wire.h"

#include <catch2/catch.hpp>
#include <limits>
#include <numeric>
#include <random>

#include "core/model/utf8.h"
#include "daemon/formats/msgpack_map.h"

using namespace eplbd;

namespace {

const Topology kTopology{
    .layers = 2, .logical_experts = 4, .slots = 6, .gpus = 2, .layer_ids = {}, .gpu_speeds = {}};

template <typename T>
PackedArray<T> packed(const std::vector<T>& values) {
  return PackedArray<T>(std::as_bytes(std::span(values)));
}

template <typename T>
std::vector<T> unpacked(const PackedArray<T>& array) {
  std::vector<T> values(array.size());
  array.copy_to(values);
  return values;
}

const std::vector<uint32_t> kCounts = {1, 2, 3, 4, 5, 6, 7, 0xffffffff};
const std::vector<int32_t> kMap = {0, 1, 2, 3, 0, 1, 3, 2, 1, 0, 3, 2};

CountsReport counts_report() {
  CountsReport report;
  report.source = "dp0";
  report.engine = "engine-1";
  report.sequence = 7;
  report.epoch = 1'700'000'000'000'000'000;
  report.since = 1000.5;
  report.ts = 1001.5;
  report.steps = 20;
  report.running = {3, 4};
  report.cumulative = true;
  report.counts = packed(kCounts);
  return report;
}

StateReport state_report() {
  StateReport report;
  report.source = "dp0";
  report.epoch = 5;
  report.ts = 1001.5;
  report.running = {3, 4};
  report.status = WorkerStatus::applied;
  report.apply_seconds = 1.5;
  report.layers = kTopology.layers;
  report.logical_experts = kTopology.logical_experts;
  report.slots = kTopology.slots;
  report.gpus = kTopology.gpus;
  report.physical_to_logical = packed(kMap);
  return report;
}

WorkerMessage decode(const std::string& payload, uint64_t sequence = 7) {
  return decode_worker_message(as_bytes(encode_sequence(sequence)), as_bytes(payload), kTopology);
}

std::optional<RejectReason> reason_of(const std::string& payload) {
  const WorkerMessage message = decode(payload);
  const auto* rejection = std::get_if<Rejection>(&message);
  return rejection == nullptr ? std::nullopt : std::optional(rejection->reason);
}

// A counts message of which `change` replaces or adds a key; nil takes it away.
template <typename T>
std::string counts_with(const std::string& changed, const T& value) {
  const std::string key_bytes = changed;
  MsgpackMap map;
  const auto add = [&](const std::string& key, const auto& usual) {
    if (key == changed) {
      map.add(key, value);
    } else {
      map.add(key, usual);
    }
  };
  add("type", std::string("counts"));
  add("v", 1);
  add("source", std::string("dp0"));
  add("epoch", 5);
  add("since", 1000.0);
  add("ts", 1001.0);
  add("steps", 3);
  add("term", 0);
  add("version", 0);
  if (changed == "counts") {
    map.add("counts", value);
  } else {
    map.add_array("counts", std::span<const uint32_t>(kCounts));
  }
  const bool is_extra = changed == "engine" || changed == "kind" || changed == "scope" ||
                        changed == "gpu_tokens" || changed == "unknown";
  if (is_extra) map.add(changed, value);
  return map.finish();
}

const msgpack::type::nil_t kNil;

}  // namespace

TEST_CASE("a counts message comes back as it was") {
  const std::string payload = encode_counts(counts_report());
  const WorkerMessage message = decode(payload);
  const auto* report = std::get_if<CountsReport>(&message);
  REQUIRE(report != nullptr);
  CHECK(report->source == "dp0");
  CHECK(report->engine == "engine-1");
  CHECK(report->sequence == 7);
  CHECK(report->epoch == 1'700'000'000'000'000'000);
  CHECK(report->since == 1000.5);
  CHECK(report->ts == 1001.5);
  CHECK(report->steps == 20);
  CHECK(report->running == PlacementId{3, 4});
  CHECK(report->cumulative);
  CHECK_FALSE(report->global);
  CHECK(unpacked(report->counts) == kCounts);
  CHECK(report->gpu_tokens.empty());
}

TEST_CASE("a state message comes back as it was") {
  const std::string payload = encode_state(state_report());
  const WorkerMessage message = decode(payload);
  const auto* report = std::get_if<StateReport>(&message);
  REQUIRE(report != nullptr);
  CHECK(report->status == WorkerStatus::applied);
  CHECK(report->apply_seconds == 1.5);
  CHECK(report->layers_done == -1);
  CHECK(report->slots == kTopology.slots);
  CHECK(unpacked(report->physical_to_logical) == kMap);
}

TEST_CASE("of the features that a state message names, the known ones are read") {
  StateReport report = state_report();
  const auto reads = [&](const std::string& payload) {
    const WorkerMessage message = decode(payload);
    const auto* state = std::get_if<StateReport>(&message);
    return state != nullptr && state->inactive_gpus;
  };
  CHECK_FALSE(reads(encode_state(report)));
  report.inactive_gpus = true;
  std::string payload = encode_state(report);
  CHECK(reads(payload));
  const std::string name = "\xad" + std::string("inactive_gpus");
  const std::string own = "\x91" + name;
  const std::string among = "\x94\xa3new\x07\x92\xc0\xc0" + name;
  REQUIRE(payload.find(own) != std::string::npos);
  payload.replace(payload.find(own), own.size(), among);
  CHECK(reads(payload));
  payload.replace(payload.find("inactive"), 1, "I");
  CHECK_FALSE(reads(payload));
}

TEST_CASE("a state message may tell of another shape, if its map has that one") {
  StateReport report = state_report();
  report.slots = 3;
  report.layers = 4;
  const WorkerMessage other = decode(encode_state(report));
  CHECK(std::holds_alternative<StateReport>(other));
  report.slots = 5;
  CHECK(reason_of(encode_state(report)) == RejectReason::wrong_shape);
  report.slots = int64_t{1} << 62;  // whose product with layers overflows
  CHECK(reason_of(encode_state(report)) == RejectReason::bad_value);
  report.slots = 0;
  CHECK(reason_of(encode_state(report)) == RejectReason::bad_value);
}

TEST_CASE("unchanged, the message of these tests is taken") {
  CHECK_FALSE(reason_of(counts_with("unknown", 1)));
  CHECK_FALSE(reason_of(counts_with("engine", std::string("e"))));
  CHECK_FALSE(reason_of(counts_with("engine", kNil)));
  CHECK_FALSE(reason_of(counts_with("ts", 1001)));  // an integer where it is one
}

TEST_CASE("what is missing or of the wrong type is named so") {
  for (const char* key :
       {"type", "v", "source", "epoch", "since", "ts", "steps", "term", "version", "counts"}) {
    INFO(key);
    CHECK(reason_of(counts_with(key, kNil)) == RejectReason::missing_key);
    CHECK(reason_of(counts_with(key, std::vector<int>{1})) == RejectReason::wrong_type);
  }
  CHECK(reason_of(counts_with("epoch", -1)) == RejectReason::wrong_type);
  CHECK(reason_of(counts_with("steps", 1.5)) == RejectReason::wrong_type);
  CHECK(reason_of(counts_with("ts", std::string("1001"))) == RejectReason::wrong_type);
}

TEST_CASE("values out of their range are rejected") {
  CHECK(reason_of(counts_with("type", std::string("placement"))) == RejectReason::unknown_type);
  CHECK(reason_of(counts_with("v", 2)) == RejectReason::wrong_version);
  CHECK(reason_of(counts_with("v", 0)) == RejectReason::wrong_version);
  CHECK(reason_of(counts_with("kind", std::string("sum"))) == RejectReason::bad_value);
  CHECK(reason_of(counts_with("scope", std::string("world"))) == RejectReason::bad_value);
  CHECK(reason_of(counts_with("source", std::string())) == RejectReason::bad_value);
  CHECK(reason_of(counts_with("source", std::string(129, 'x'))) == RejectReason::bad_value);
  CHECK_FALSE(reason_of(counts_with("source", std::string(128, 'x'))));
  CHECK(reason_of(counts_with("source", std::string("a\nb"))) == RejectReason::bad_value);
  CHECK(reason_of(counts_with("source", std::string("\xff"))) == RejectReason::bad_value);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(reason_of(counts_with("ts", nan)) == RejectReason::bad_timestamp);
  CHECK(reason_of(counts_with("since", HUGE_VAL)) == RejectReason::bad_timestamp);
}

TEST_CASE("arrays have our shape or are rejected") {
  for (const size_t cells : {0UL, 7UL, 9UL}) {
    CountsReport report = counts_report();
    const std::vector<uint32_t> counts(cells, 1);
    report.counts = packed(counts);
    CHECK(reason_of(encode_counts(report)) == RejectReason::wrong_shape);
  }
  CountsReport report = counts_report();
  const std::vector<uint32_t> gpu_tokens = {1, 2, 3, 4};
  report.gpu_tokens = packed(gpu_tokens);
  CHECK_FALSE(reason_of(encode_counts(report)));
  const std::vector<uint32_t> too_few = {1, 2, 3};
  report.gpu_tokens = packed(too_few);
  CHECK(reason_of(encode_counts(report)) == RejectReason::wrong_shape);
}

TEST_CASE("what is no message at all is malformed") {
  CHECK(reason_of("") == RejectReason::malformed);
  CHECK(reason_of("hello") == RejectReason::malformed);
  CHECK(reason_of("\x93\x01\x02\x03") == RejectReason::malformed);  // an array
  CHECK(reason_of(encode_counts(counts_report()) + "x") == RejectReason::malformed);
  const std::string whole = encode_counts(counts_report());
  for (size_t length = 0; length < whole.size(); ++length) {
    CHECK(reason_of(whole.substr(0, length)) == RejectReason::malformed);
  }
  // A key that comes twice: which of the two would count?
  MsgpackMap twice;
  twice.add("type", std::string("counts"));
  twice.add("type", std::string("state"));
  CHECK(reason_of(twice.finish()) == RejectReason::malformed);
  // A key that is no text.
  CHECK(reason_of("\x81\x01\x02") == RejectReason::malformed);
}

TEST_CASE("random bytes never get through, nor harm") {
  std::mt19937 random(7);
  const std::string whole = encode_counts(counts_report());
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = whole;
    for (uint32_t flips = 1 + random() % 8; flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const WorkerMessage message = decode(bytes);
    if (const auto* report = std::get_if<CountsReport>(&message)) {
      CHECK(report->counts.size() == kCounts.size());
      CHECK(is_printable_utf8(report->source));
      CHECK(std::isfinite(report->ts));
    }
  }
}

TEST_CASE("a sequence has eight bytes") {
  CHECK(decode_sequence(as_bytes(encode_sequence(0x0102030405060708))) == 0x0102030405060708);
  CHECK(encode_sequence(1) == std::string("\0\0\0\0\0\0\0\1", 8));
  CHECK_FALSE(decode_sequence(as_bytes("1234567")));
  const WorkerMessage message = decode_worker_message(
      as_bytes("123456789"), as_bytes(encode_counts(counts_report())), kTopology);
  CHECK(std::get<Rejection>(message).reason == RejectReason::wrong_frames);
}

TEST_CASE("a placement comes back as it was") {
  PlacementUpdate update;
  update.id = {9, 8};
  update.base = {9, 7};
  update.unix_seconds = 1234.5;
  update.reason = UpdateReason::threshold;
  update.placement = Placement(kTopology, kMap);
  update.changed_layers = {1, 0};
  update.moves = {{1, 2, 3, -1}, {0, 5, 2, 4}};
  update.gpus_down = {1};
  update.imbalance_before = 1.5;
  update.imbalance_after = 1.25;
  const std::string payload = encode_placement(update, kTopology);
  const DaemonMessage message = decode_daemon_message(as_bytes(payload), kTopology);
  const auto* read = std::get_if<PlacementUpdate>(&message);
  REQUIRE(read != nullptr);
  CHECK(read->id == update.id);
  CHECK(read->base == update.base);
  CHECK(read->unix_seconds == update.unix_seconds);
  CHECK(read->reason == update.reason);
  CHECK(read->placement == update.placement);
  CHECK(read->changed_layers == update.changed_layers);
  CHECK(read->moves == update.moves);
  CHECK(read->gpus_down == update.gpus_down);
  CHECK(read->imbalance_before == update.imbalance_before);
  CHECK(read->imbalance_after == update.imbalance_after);

  Topology other = kTopology;
  other.slots = 12;
  CHECK(std::holds_alternative<std::monostate>(decode_daemon_message(as_bytes(payload), other)));
}

TEST_CASE("a heartbeat comes back as it was") {
  const std::string payload = encode_heartbeat({{9, 8}, 1234.5, Mode::shadow});
  const DaemonMessage message = decode_daemon_message(as_bytes(payload), kTopology);
  const auto* read = std::get_if<Heartbeat>(&message);
  REQUIRE(read != nullptr);
  CHECK(read->id == PlacementId{9, 8});
  CHECK(read->unix_seconds == 1234.5);
  CHECK(read->mode == Mode::shadow);
}
