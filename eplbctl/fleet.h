// A simulated fleet of workers on real sockets: every source publishes running counts once a step,
// out of step with the others (see SourceCounters); the first one also receives placements and
// reports the group's state, as docs/wire.md says.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/topology.h"
#include "eplbctl/placement_follower.h"

namespace eplbd {

// Who a simulated fleet says it is: its engine, and sources sim0, sim1, ...
inline constexpr char kSimulatedEngine[] = "eplbctl-load";
std::string simulated_source(int32_t index);
bool is_simulated(std::string_view source);

struct FleetOptions {
  std::string deployment;
  std::vector<std::string> counts = {"tcp://127.0.0.1:15557"};  // the daemon's, connected to
  std::vector<std::string> placements = {"tcp://127.0.0.1:15657"};
  int32_t sources = 8;
  double apply_seconds = 2;
  std::string curve_secret_key;  // files; empty: plaintext
  std::string curve_server_key;
};

class Fleet {
 public:
  // Throws std::runtime_error naming an address that cannot be connected to.
  Fleet(const Topology& topology, const FleetOptions& options);
  ~Fleet();

  // Until this is called it only listens.
  void speak();
  bool speaks() const;

  // The traffic [layers, experts] of a step that lasts so long from `start` on. Reports of the step
  // before that are still due are sent now.
  void begin_step(std::span<const uint32_t> counts, TimePoint start, Duration length);

  // Receives, applies and reports until `deadline`.
  void run_until(TimePoint deadline);

  const PlacementFollower& follower() const;
  int64_t messages() const;  // sent
  bool heard() const;        // anything from a daemon, ever

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
