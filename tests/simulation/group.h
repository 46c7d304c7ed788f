// The workers of a simulated deployment: sources that count, one that receives placements and
// reports what the group runs, and everything that they may do wrong.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/model/placement_update.h"
#include "core/workers/worker_report.h"
#include "tests/simulation/scenario.h"

namespace eplbd::simulation {

class World;

class Group {
 public:
  Group(World& world, const Scenario& scenario);
  void begin();

  // ---- What comes from the daemon ----
  void receive(const PlacementUpdate& update);
  void receive_heartbeat(PlacementId id);

  // ---- What befalls it ----
  void move_load(uint64_t experts) { shift_ += experts; }
  void restart_source(int32_t source);
  void restart();
  void reset_counters(int32_t source);
  void move_clock(int32_t source, double seconds);
  void send_odd_number(int32_t source, uint64_t edge, int field);
  void report_odd_name(PlacementId id, bool two_maps);
  void report_rising_names();  // as long as that lasts
  void flap();                 // as long as that lasts
  void send_strangers(uint64_t sources);

  PlacementId running() const { return running_; }
  double tokens_per_second() const;

 private:
  struct Source {
    std::string name;
    uint64_t epoch = 1;
    uint64_t sequence = 0;
    double since = 0;
    double clock_ahead = 0;  // of ours, seconds
    double counted_at = 0;
    bool cumulative = false;
    std::vector<uint32_t> counter;  // cumulative, or since the last message
  };
  struct Applying {
    PlacementUpdate update;
    int32_t layers_done = 0;
  };

  void count_and_again(int32_t index);
  void count(Source& source);
  CountsReport counts_report(Source& source) const;
  void send_counts(Source& source, CountsReport report);
  void report_and_again();
  void report(WorkerStatus status);
  void report_map(int32_t source, PlacementId id, std::vector<int32_t> map, WorkerStatus status);
  std::vector<int32_t> seen_map() const;  // as it is reported
  void take(const PlacementUpdate& update);
  void apply_layer(uint64_t number);
  double now(const Source& source) const;

  World& world_;
  const Scenario& scenario_;
  std::vector<Source> sources_;
  uint64_t shift_ = 0;
  uint64_t epochs_ = 1;
  PlacementId held_;  // the newest that it took up
  PlacementId running_;
  std::vector<int32_t> map_;
  std::optional<Applying> applying_;
  uint64_t applications_ = 0;
  double reported_at_ = -10;
};

}  // namespace eplbd::simulation
