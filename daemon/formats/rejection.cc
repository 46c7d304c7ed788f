// SPDX-License-Identifier: Apache-2.0
#include "daemon/formats/rejection.h"

#include <fmt/format.h>

#include "daemon/formats/wire_keys.h"

namespace eplbd {
namespace {

std::string dimensions(std::string_view key, const Topology& topology) {
  if (key == key::kCounts) return fmt::format("{} x {}", topology.layers, topology.logical_experts);
  if (key == key::kGpuTokens) return fmt::format("{} x {}", topology.layers, topology.gpus);
  return "layers x slots";
}

// What people send instead; empty where it looks like nothing that is known.
std::string_view guess(const Rejection& rejection, const Topology& topology) {
  const uint64_t bytes = rejection.bytes;
  const uint64_t per_slot = uint64_t{4} * topology.layers * topology.slots;
  if (bytes == 0) return ": nothing in it?";
  if (rejection.key == key::kCounts && bytes == per_slot) return ": per slot?";
  if (rejection.key == key::kCounts && bytes == 2 * per_slot) return ": int64, per slot?";
  if (bytes == 2 * rejection.expected_bytes) return ": int64?";
  if (2 * bytes == rejection.expected_bytes) return ": 16 bits each?";
  if (bytes % (uint64_t{4} * topology.layers) != 0 && bytes % 4 == 0) return ": other layers?";
  return "";
}

}  // namespace

std::string explain(const Rejection& rejection, const Topology& topology) {
  const std::string_view key = rejection.key;
  switch (rejection.reason) {
    case RejectReason::wrong_frames:
      return "not three frames: topic, sequence (8 bytes, big-endian), payload";
    case RejectReason::wrong_topic:
      return "its topic begins with the deployment's name, but is another";
    case RejectReason::malformed:
      return "the payload is not one msgpack map with string keys (at most 64, each once, 4 levels "
             "deep)";
    case RejectReason::missing_key:
      return fmt::format("{} is missing", key);
    case RejectReason::wrong_type:
      return fmt::format("{} has the wrong type, wants {}", key, rejection.expected);
    case RejectReason::unknown_type:
      return "type is neither counts nor state";
    case RejectReason::wrong_version:
      return "v is another than 1";
    case RejectReason::wrong_shape:
      return fmt::format("{} has {} bytes, wants {} x 4 = {}{}", key, rejection.bytes,
                         dimensions(key, topology), rejection.expected_bytes,
                         guess(rejection, topology));
    case RejectReason::bad_value:
      if (key.empty()) return "a value is out of its range";
      return fmt::format("{} is out of its range, wants {}", key, rejection.expected);
    case RejectReason::bad_timestamp:
      if (!key.empty()) return fmt::format("{} is not finite", key);
      return "ts does not grow, or its term is more than a day ahead";
    case RejectReason::wrong_engine:
      return "another engine instance than the one that is followed (workers.engine)";
    case RejectReason::source_conflict:
      return "an epoch that went back, or two senders under one name";
    case RejectReason::scope_conflict:
      return "global and local counts mixed, or a second global source";
    case RejectReason::too_many_sources:
      return "as many sources as limits.sources allows are there already";
    case RejectReason::unauthorized:
      return "its key may not speak for this source";
  }
  return "";
}

}  // namespace eplbd
