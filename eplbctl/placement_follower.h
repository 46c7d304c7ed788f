// A worker's side of a placement: which one it takes, and while it applies it which one still
// serves. Pure; docs/wire.md has the rules.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "core/decide/rebalancer.h"
#include "core/model/time.h"
#include "core/workers/worker_report.h"
#include "daemon/formats/wire.h"

namespace eplbd {

class PlacementFollower {
 public:
  PlacementFollower(const Topology& topology, Duration apply_time);

  // Takes what is above what it holds. One that comes while another is being applied waits; of
  // several the newest.
  void on_placement(PlacementUpdate update, TimePoint now);

  // True: there is a placement that it did not get, subscribe anew.
  bool on_heartbeat(const Heartbeat& heartbeat);

  // Finishes what is applied by now.
  void advance(TimePoint now);

  // When something happens by itself next; nothing: never.
  std::optional<TimePoint> next_change() const { return applied_at_; }

  // True once after each change that a state message must tell.
  bool take_report_due();

  const Placement& serving() const { return serving_; }
  PlacementId running() const { return running_; }
  WorkerStatus status() const { return status_; }
  Duration apply_time() const { return apply_time_; }
  int64_t moves() const { return moves_; }  // weights fetched so far
  int64_t updates() const { return updates_; }

 private:
  void start(TimePoint now);

  const Topology& topology_;
  Duration apply_time_;
  Placement serving_;
  PlacementId running_;
  WorkerStatus status_ = WorkerStatus::idle;
  std::optional<PlacementUpdate> applying_;
  std::optional<PlacementUpdate> waiting_;
  std::optional<TimePoint> applied_at_;
  bool report_due_ = true;
  int64_t moves_ = 0;
  int64_t updates_ = 0;
};

}  // namespace eplbd
