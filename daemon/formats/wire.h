// Bytes <-> what core works with: the messages of docs/wire.md. Pure: no socket, no clock.
// Decoding allocates nothing; what it returns are views into the message.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "core/decide/rebalancer.h"
#include "core/model/topology.h"
#include "core/workers/worker_report.h"
#include "daemon/formats/rejection.h"

namespace eplbd {

inline constexpr int kWireVersion = 1;
inline constexpr size_t kWireFrames = 3;  // topic, sequence, payload

// The second frame: 8 bytes, big-endian.
std::string encode_sequence(uint64_t sequence);
std::optional<uint64_t> decode_sequence(std::span<const std::byte> frame);

// ---- Worker -> daemon ----

// Bytes of the largest payload that a worker of this deployment has reason to send.
size_t largest_worker_message(const Topology& topology);

using WorkerMessage = std::variant<Rejection, CountsReport, StateReport>;

// Counts have this topology's shape, or are rejected; `other_gpus`: or so many GPUs, as the group
// reports. A state report may tell of another shape (its map has the one that it names): what that
// means is the rebalancer's to say.
WorkerMessage decode_worker_message(std::span<const std::byte> sequence,
                                    std::span<const std::byte> payload, const Topology& topology,
                                    int32_t other_gpus = 0);

// What a worker sends: the simulated fleet, tests and benchmarks. Requires: shapes that agree.
std::string encode_counts(const CountsReport& report);
std::string encode_state(const StateReport& report);

// ---- Daemon -> worker ----

std::string encode_placement(const PlacementUpdate& update, const Topology& topology);

struct Heartbeat {
  PlacementId id;
  double unix_seconds = 0;
  Mode mode = Mode::active;
};
std::string encode_heartbeat(const Heartbeat& heartbeat);

// Nothing: neither of the two, damaged, or of another shape. The state file keeps placements in
// this form too.
using DaemonMessage = std::variant<std::monostate, PlacementUpdate, Heartbeat>;
DaemonMessage decode_daemon_message(std::span<const std::byte> payload, const Topology& topology);

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace eplbd
