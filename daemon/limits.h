// What each of our listeners takes from strangers, by the descriptors and the shape there are.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/model/topology.h"
#include "daemon/net/counts_subscriber.h"
#include "daemon/net/http_server.h"
#include "daemon/net/zmq_peers.h"

namespace eplbd {

struct Limits {
  HttpLimits http;
  HttpLimits control;
  CountsLimits counts;
  ZmqPeerLimits placements;
};

// Throws as share_descriptors().
Limits limits_for(const Topology& topology);

}  // namespace eplbd
