// What workers tell: counts of tokens, and the state of their group. Views into a received message;
// whoever decodes it owns the bytes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "core/model/names.h"
#include "core/model/placement.h"

namespace eplbd {

static_assert(std::endian::native == std::endian::little, "msgpack bin arrays are little-endian");

// A little-endian array inside a message, at any alignment.
template <typename T>
class PackedArray {
 public:
  PackedArray() = default;
  // Requires: bytes.size() % sizeof(T) == 0.
  explicit PackedArray(std::span<const std::byte> bytes) : bytes_(bytes) {}
  explicit PackedArray(std::span<const T> values) : bytes_(std::as_bytes(values)) {}
  size_t size() const { return bytes_.size() / sizeof(T); }
  bool empty() const { return bytes_.empty(); }
  std::span<const std::byte> bytes() const { return bytes_; }
  T operator[](size_t index) const {
    T value;
    std::memcpy(&value, bytes_.data() + index * sizeof(T), sizeof(T));
    return value;
  }
  // Requires: out.size() == size().
  void copy_to(std::span<T> out) const {
    if (!bytes_.empty()) std::memcpy(out.data(), bytes_.data(), bytes_.size());
  }

 private:
  std::span<const std::byte> bytes_;
};

// type "counts" of the wire: see docs/wire.md.
struct CountsReport {
  std::string_view source;
  std::string_view engine;
  uint64_t sequence = 0;  // of the message, per epoch
  uint64_t epoch = 0;
  double since = 0;  // Unix seconds of the worker's clock
  double ts = 0;     // Unix seconds of the worker's clock
  uint64_t steps = 0;
  PlacementId running;
  bool cumulative = false;
  bool global = false;
  PackedArray<uint32_t> counts;      // [layers, logical_experts]
  PackedArray<uint32_t> gpu_tokens;  // [layers, gpus], or empty
};

enum class WorkerStatus { idle, applying, applied, failed, refused };
constexpr auto names(WorkerStatus) {
  return std::to_array<std::string_view>({"idle", "applying", "applied", "failed", "refused"});
}

// type "state" of the wire.
struct StateReport {
  std::string_view source;
  std::string_view engine;
  uint64_t sequence = 0;
  uint64_t epoch = 0;
  double ts = 0;
  PlacementId running;
  WorkerStatus status = WorkerStatus::idle;
  int64_t layers_done = -1;   // -1: not said
  double apply_seconds = -1;  // -1: not said
  std::string_view error;
  int64_t layers = 0;
  int64_t logical_experts = 0;
  int64_t slots = 0;
  int64_t gpus = 0;
  PackedArray<int32_t> physical_to_logical;  // [layers, slots]
  bool inactive_gpus = false;  // of its features: it can run with a GPU that holds nothing

  // The shape, and a view of the map: `placement` outlives it.
  void set_map(const Topology& topology, const Placement& placement) {
    layers = topology.layers;
    logical_experts = topology.logical_experts;
    slots = topology.slots;
    gpus = topology.gpus;
    physical_to_logical = PackedArray<int32_t>(placement.map());
  }
};

// Why a message was dropped whole. The label values of eplbd_counts_rejected_total{reason}.
enum class RejectReason {
  wrong_frames,  // not three frames, or a sequence that is not 8 bytes
  wrong_topic,   // begins with ours, but is not ours
  malformed,     // not msgpack, not a map, over 64 keys or 4 levels
  missing_key,
  wrong_type,       // of a key: counts as a list, say
  unknown_type,     // neither counts nor state
  wrong_version,    // of the wire
  wrong_shape,      // an array whose size is not this deployment's
  bad_value,        // out of its range: an expert id, a status, a source's name
  bad_timestamp,    // not finite, does not grow, or a term more than a day ahead
  wrong_engine,     // another engine instance than the one we follow
  source_conflict,  // a smaller epoch, or two senders under one name
  scope_conflict,   // global and local counts mixed, or a second global source
  too_many_sources,
  unauthorized  // the key may not speak for this source
};
constexpr auto names(RejectReason) {
  return std::to_array<std::string_view>(
      {"wrong_frames", "wrong_topic", "malformed", "missing_key", "wrong_type", "unknown_type",
       "wrong_version", "wrong_shape", "bad_value", "bad_timestamp", "wrong_engine",
       "source_conflict", "scope_conflict", "too_many_sources", "unauthorized"});
}

}  // namespace eplbd
