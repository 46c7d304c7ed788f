// SPDX-License-Identifier: Apache-2.0
#include "daemon/formats/wire.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>

#include "core/model/utf8.h"
#include "daemon/formats/msgpack_reader.h"
#include "daemon/formats/wire_keys.h"

namespace eplbd {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::string_view kName = "1 to 128 bytes of printable UTF-8";

bool is_name(std::string_view text) {
  return text.size() <= kMaxNameBytes && is_printable_utf8(text);
}

// The values of one message by key, with the first reason why it cannot be taken.
class Fields {
 public:
  // False: it is no message.
  bool read(Bytes payload) {
    MsgpackReader reader(payload);
    const auto map = reader.next();
    if (!map || map->type != MsgpackType::map || map->items > kMsgpackMaxKeys) return false;
    for (uint32_t i = 0; i < map->items; ++i) {
      const auto said = reader.next();
      const auto key = said ? said->as_string() : std::nullopt;
      if (!key || find(*key) != nullptr) return false;  // which of the two would count?
      const auto value = reader.next_whole(1);
      if (!value) return false;
      entries_[count_++].emplace(Entry{*key, *value});
    }
    return reader.at_end();
  }

  uint64_t uint(std::string_view key, std::optional<uint64_t> otherwise = {}) {
    return take(key, otherwise, "an integer >= 0",
                [](const MsgpackValue& value) { return value.as_uint(); });
  }
  double number(std::string_view key, std::optional<double> otherwise = {}) {
    return take(key, otherwise, "a number",
                [](const MsgpackValue& value) { return value.as_double(); });
  }
  std::string_view text(std::string_view key, std::optional<std::string_view> otherwise = {}) {
    return take(key, otherwise, "a string",
                [](const MsgpackValue& value) { return value.as_string(); });
  }
  Bytes binary(std::string_view key, std::optional<Bytes> otherwise = {}) {
    return take(key, otherwise, "bin: the bytes of a little-endian array",
                [](const MsgpackValue& value) { return value.as_binary(); });
  }
  // An int32 or uint32 array of `items` elements; absent may be an empty one.
  template <typename T>
  PackedArray<T> array(std::string_view key, uint64_t items, std::optional<Bytes> otherwise = {}) {
    const Bytes bytes = binary(key, otherwise);
    if (failed_ || (bytes.empty() && otherwise)) return {};
    if (bytes.size() % sizeof(T) != 0 || bytes.size() / sizeof(T) != items) {
      fail({RejectReason::wrong_shape, {}, key, {}, bytes.size(), items * sizeof(T)});
      return {};
    }
    return PackedArray<T>(bytes);
  }
  // An array, wherever it is one of so many items.
  bool has_items(std::string_view key, uint64_t items, size_t bytes_of_one) const {
    const MsgpackValue* value = find_said(key);
    const auto bytes = value == nullptr ? std::nullopt : value->as_binary();
    return bytes && bytes->size() == items * bytes_of_one;
  }
  void require(bool condition, RejectReason otherwise, std::string_view key,
               std::string_view expected = {}) {
    if (!condition) fail({otherwise, {}, key, expected});
  }
  void array_or_absent(std::string_view key) {
    const MsgpackValue* value = find_said(key);
    const bool fits = value == nullptr || value->type == MsgpackType::array;
    require(fits, RejectReason::wrong_type, key, "an array");
  }
  bool failed() const { return failed_.has_value(); }
  // Requires: failed().
  Rejection failure() const {
    Rejection rejection = *failed_;
    const MsgpackValue* source = find_said(key::kSource);
    const auto name = source == nullptr ? std::nullopt : source->as_string();
    if (name && is_name(*name)) rejection.source = *name;
    return rejection;
  }
  // Whether that array has this string among its elements.
  bool lists(std::string_view key, std::string_view text) const {
    const MsgpackValue* value = find_said(key);
    if (value == nullptr) return false;
    MsgpackReader elements(value->bytes);
    while (const auto element = elements.next_whole(2)) {
      if (element->as_string() == text) return true;
    }
    return false;
  }

 private:
  const MsgpackValue* find(std::string_view key) const {
    for (size_t i = 0; i < count_; ++i) {
      if (entries_[i]->key == key) return &entries_[i]->value;
    }
    return nullptr;
  }
  const MsgpackValue* find_said(std::string_view key) const {
    const MsgpackValue* value = find(key);
    return value == nullptr || value->type == MsgpackType::nil ? nullptr : value;
  }
  void fail(const Rejection& why) {
    if (!failed_) failed_ = why;
  }
  template <typename T, typename Convert>
  T take(std::string_view key, std::optional<T> otherwise, std::string_view type, Convert convert) {
    const MsgpackValue* said = find_said(key);
    if (said == nullptr) {
      if (!otherwise) fail({RejectReason::missing_key, {}, key, type});
      return otherwise.value_or(T{});
    }
    const std::optional<T> value = convert(*said);
    if (!value) fail({RejectReason::wrong_type, {}, key, type});
    return value.value_or(T{});
  }

  struct Entry {
    std::string_view key;
    MsgpackValue value;
  };
  // The first count_ of them. Most messages have few: the rest is not even initialised.
  std::array<std::optional<Entry>, kMsgpackMaxKeys> entries_;
  size_t count_ = 0;
  std::optional<Rejection> failed_;
};

// What counts and state say alike.
template <typename Report>
void read_common(Fields& fields, Report& report) {
  report.source = fields.text(key::kSource);
  report.engine = fields.text(key::kEngine, "");
  report.epoch = fields.uint(key::kEpoch);
  report.ts = fields.number(key::kTs);
  report.running.term = fields.uint(key::kTerm);
  report.running.version = fields.uint(key::kVersion);
  fields.require(!report.source.empty() && is_name(report.source), RejectReason::bad_value,
                 key::kSource, kName);
  fields.require(is_name(report.engine), RejectReason::bad_value, key::kEngine, kName);
  fields.require(std::isfinite(report.ts), RejectReason::bad_timestamp, key::kTs);
}

WorkerMessage decode_counts(Fields& fields, uint64_t sequence, const Topology& topology,
                            int32_t other_gpus) {
  CountsReport report;
  read_common(fields, report);
  report.sequence = sequence;
  report.since = fields.number(key::kSince);
  report.steps = fields.uint(key::kSteps);
  const std::string_view kind = fields.text(key::kKind, "delta");
  const std::string_view scope = fields.text(key::kScope, "local");
  report.cumulative = kind == "cumulative";
  report.global = scope == "global";
  const auto layers = static_cast<uint64_t>(topology.layers);
  report.counts = fields.array<uint32_t>(key::kCounts, layers * topology.logical_experts);
  const uint64_t other = layers * other_gpus;
  const bool of_other =
      other_gpus > 0 && fields.has_items(key::kGpuTokens, other, sizeof(uint32_t));
  report.gpu_tokens =
      fields.array<uint32_t>(key::kGpuTokens, of_other ? other : layers * topology.gpus, Bytes{});
  fields.require(std::isfinite(report.since), RejectReason::bad_timestamp, key::kSince);
  fields.require(report.cumulative || kind == "delta", RejectReason::bad_value, key::kKind,
                 "delta or cumulative");
  fields.require(report.global || scope == "local", RejectReason::bad_value, key::kScope,
                 "local or global");
  if (fields.failed()) return fields.failure();
  return report;
}

WorkerMessage decode_state(Fields& fields, uint64_t sequence) {
  constexpr uint64_t kMaxDimension = 1 << 20;  // products stay in 64 bits
  constexpr double kLongestApplySeconds = 30 * 86400.0;
  StateReport report;
  read_common(fields, report);
  report.sequence = sequence;
  const auto status = from_name<WorkerStatus>(fields.text(key::kStatus));
  constexpr uint64_t kNotSaid = UINT64_MAX;
  const uint64_t layers_done = fields.uint(key::kLayersDone, kNotSaid);
  constexpr double kNoApplySeconds = -1;
  report.apply_seconds = fields.number(key::kApplySeconds, kNoApplySeconds);
  report.error = fields.text(key::kError, "");
  const auto dimension = [&](std::string_view key) {
    const uint64_t value = fields.uint(key);
    fields.require(value >= 1 && value <= kMaxDimension, RejectReason::bad_value, key,
                   "1 to 1048576");
    return value;
  };
  const uint64_t layers = dimension(key::kLayers);
  const uint64_t experts = dimension(key::kLogicalExperts);
  const uint64_t slots = dimension(key::kSlots);
  const uint64_t gpus = dimension(key::kGpus);
  fields.array_or_absent(key::kFeatures);
  report.inactive_gpus = fields.lists(key::kFeatures, kInactiveGpus);
  report.physical_to_logical = fields.array<int32_t>(key::kPhysicalToLogical, layers * slots);
  fields.require(status.has_value(), RejectReason::bad_value, key::kStatus,
                 "idle, applying, applied, failed or refused");
  fields.require(layers_done <= layers || layers_done == kNotSaid, RejectReason::bad_value,
                 key::kLayersDone, "at most layers");
  const bool applies_in = report.apply_seconds >= 0 && report.apply_seconds <= kLongestApplySeconds;
  fields.require(applies_in || report.apply_seconds == kNoApplySeconds, RejectReason::bad_value,
                 key::kApplySeconds, "0 to 30 days of seconds");
  if (fields.failed()) return fields.failure();
  report.status = *status;
  report.layers_done = layers_done == kNotSaid ? -1 : static_cast<int64_t>(layers_done);
  report.layers = static_cast<int64_t>(layers);
  report.logical_experts = static_cast<int64_t>(experts);
  report.slots = static_cast<int64_t>(slots);
  report.gpus = static_cast<int64_t>(gpus);
  return report;
}

std::vector<int32_t> copy(const PackedArray<int32_t>& array) {
  std::vector<int32_t> values(array.size());
  array.copy_to(values);
  return values;
}

// An int32 array of as many elements as came, in multiples of `width`.
std::vector<int32_t> any_length(Fields& fields, std::string_view key, size_t width = 1) {
  const Bytes bytes = fields.binary(key);
  fields.require(bytes.size() % (sizeof(int32_t) * width) == 0, RejectReason::wrong_shape, key);
  return fields.failed() ? std::vector<int32_t>{} : copy(PackedArray<int32_t>(bytes));
}

DaemonMessage decode_placement(Fields& fields, const Topology& topology) {
  PlacementUpdate update;
  update.id = {fields.uint(key::kTerm), fields.uint(key::kVersion)};
  update.base = {fields.uint(key::kBaseTerm, update.id.term), fields.uint(key::kBaseVersion)};
  update.unix_seconds = fields.number(key::kTs);
  const auto reason = from_name<UpdateReason>(fields.text(key::kReason));
  update.imbalance_before = fields.number(key::kImbalanceBefore);
  update.imbalance_after = fields.number(key::kImbalanceAfter);
  const auto is = [&](std::string_view key, int32_t value) {
    const bool ours = fields.uint(key) == static_cast<uint64_t>(value);
    fields.require(ours, RejectReason::wrong_shape, key);
  };
  is(key::kLayers, topology.layers);
  is(key::kLogicalExperts, topology.logical_experts);
  is(key::kSlots, topology.slots);
  is(key::kGpus, topology.gpus);
  const uint64_t cells = static_cast<uint64_t>(topology.layers) * topology.slots;
  const auto map = fields.array<int32_t>(key::kPhysicalToLogical, cells);
  update.changed_layers = any_length(fields, key::kChangedLayers);
  update.gpus_down = any_length(fields, key::kGpusDown);
  const std::vector<int32_t> moves = any_length(fields, key::kMoves, 4);
  if (fields.failed() || !reason) return {};
  for (size_t i = 0; i < moves.size(); i += 4) {
    update.moves.push_back({moves[i], moves[i + 1], moves[i + 2], moves[i + 3]});
  }
  update.reason = *reason;
  update.placement = Placement(topology, copy(map));
  return update;
}

DaemonMessage decode_heartbeat(Fields& fields) {
  Heartbeat heartbeat;
  heartbeat.id = {fields.uint(key::kTerm), fields.uint(key::kVersion)};
  heartbeat.unix_seconds = fields.number(key::kTs);
  const auto mode = from_name<Mode>(fields.text(key::kMode));
  if (fields.failed() || !mode) return {};
  heartbeat.mode = *mode;
  return heartbeat;
}

}  // namespace

std::optional<uint64_t> decode_sequence(Bytes frame) {
  if (frame.size() != sizeof(uint64_t)) return std::nullopt;
  uint64_t sequence = 0;
  for (const std::byte byte : frame) sequence = sequence << 8 | std::to_integer<uint64_t>(byte);
  return sequence;
}

size_t largest_worker_message(const Topology& topology) {
  constexpr size_t kOtherKeys = 16 << 10;  // names, an error's text, keys of later versions
  const auto layers = static_cast<size_t>(topology.layers);
  const size_t counts =
      sizeof(uint32_t) * layers * (static_cast<size_t>(topology.logical_experts) + topology.gpus);
  const size_t map = sizeof(int32_t) * layers * static_cast<size_t>(topology.slots);
  return std::max(counts, map) + kOtherKeys;
}

WorkerMessage decode_worker_message(Bytes sequence_frame, Bytes payload, const Topology& topology,
                                    int32_t other_gpus) {
  const auto sequence = decode_sequence(sequence_frame);
  if (!sequence) return Rejection{RejectReason::wrong_frames};
  Fields fields;
  if (!fields.read(payload)) return Rejection{RejectReason::malformed};
  const std::string_view type = fields.text(key::kType);
  fields.require(type == "counts" || type == "state", RejectReason::unknown_type, key::kType);
  const uint64_t version = fields.uint(key::kV);
  fields.require(version == kWireVersion, RejectReason::wrong_version, key::kV);
  if (fields.failed()) return fields.failure();
  return type == "counts" ? decode_counts(fields, *sequence, topology, other_gpus)
                          : decode_state(fields, *sequence);
}

DaemonMessage decode_daemon_message(Bytes payload, const Topology& topology) {
  Fields fields;
  if (!fields.read(payload) || fields.uint(key::kV) != kWireVersion) return {};
  const std::string_view type = fields.text(key::kType);
  if (type == "placement") return decode_placement(fields, topology);
  if (type == "heartbeat") return decode_heartbeat(fields);
  return {};
}

}  // namespace eplbd
