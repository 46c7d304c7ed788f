// SPDX-License-Identifier: Apache-2.0
#include "daemon/limits.h"

#include <algorithm>

#include "daemon/descriptors.h"
#include "daemon/formats/wire.h"

namespace eplbd {
namespace {

// The largest body is an imported placement: room for each number, its comma and its spaces, and
// for a group that has grown.
size_t control_body_bytes(const Topology& topology) {
  constexpr size_t kBytesOfACell = 12;
  constexpr size_t kGrowth = 4;
  return (64 << 10) +
         static_cast<size_t>(topology.layers) * topology.slots * kBytesOfACell * kGrowth;
}

CountsLimits counts_limits(size_t connections, const Topology& topology) {
  CountsLimits limits;
  const auto largest = static_cast<int64_t>(largest_worker_message(topology));
  limits.frame_bytes = std::max(limits.frame_bytes, largest);
  // One frame on its way, and what waits in queues while a placement is searched for.
  limits.peers = {connections, static_cast<size_t>(limits.frame_bytes + (4 << 20) + 16 * largest)};
  return limits;
}

}  // namespace

Limits limits_for(const Topology& topology) {
  const DescriptorShares shares = share_descriptors();
  Limits limits;
  limits.http.connections = shares.http;
  limits.control.connections = shares.control;
  limits.control.body_bytes = control_body_bytes(topology);
  limits.counts = counts_limits(shares.counts, topology);
  // Subscriptions and answers to heartbeats: a few bytes a second.
  limits.placements = {shares.placements, 4 << 20};
  return limits;
}

}  // namespace eplbd
