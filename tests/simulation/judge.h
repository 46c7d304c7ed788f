// What must hold whatever happens, checked against nothing but what a deployment says and does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/placement_update.h"
#include "daemon/deployment.h"
#include "tests/simulation/disk.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/schedule.h"

namespace eplbd::simulation {

// A rule that did not hold. Ends a run.
struct Broken {
  std::string rule;
  std::string detail;
  double at = 0;  // seconds
};

class Judge {
 public:
  Judge(const Scenario& scenario, const Schedule& schedule, const Disk& disk)
      : scenario_(scenario), schedule_(schedule), disk_(disk) {}

  // ---- What happened ----
  void started(const Deployment* deployment) {
    deployment_ = deployment;
    adopted_.reset();
    adopted_pause_ = Duration{0};
    hindered_at_ = schedule_.now();
  }
  void hindered() { hindered_at_ = schedule_.now(); }  // by its disk
  void lost_its_state();                     // names may go back, and what was spent is forgotten
  void lost_its_dates() { spent_.clear(); }  // the clock was set, and not one save went through
  void ordered_gpus() { gpus_ordered_ = true; }
  void may_empty_gpus() { may_empty_gpus_ = true; }  // the group says so, or does
  void counted(double tokens) { counted_ += tokens; }

  // ---- What the deployment does ----
  void held(const PlacementUpdate& update);  // it is what subscribers get from here on
  void named(PlacementId id);                // in a placement or a heartbeat
  void check_window(TimePoint now) const;
  void check_decides(TimePoint now) const;
  // Long after the last fault. `running`: what the group runs; `tokens_per_second`: all of them.
  void check_settled(Now now, PlacementId running, double tokens_per_second) const;

 private:
  struct Spent {
    TimePoint at;
    bool forced = false;
    int64_t moves = 0;
  };
  [[noreturn]] void fail(std::string rule, std::string detail) const;
  void check_adopted(const PlacementUpdate& update);
  void check_rails(const PlacementUpdate& update);
  void check_limits(const PlacementUpdate& update) const;

  const Scenario& scenario_;
  const Schedule& schedule_;
  const Disk& disk_;
  const Deployment* deployment_ = nullptr;
  std::map<PlacementId, Placement> maps_;  // of every name
  PlacementId named_;                      // the newest
  std::vector<Spent> spent_;
  std::optional<TimePoint> adopted_;  // when the last such was announced
  Duration adopted_pause_{};          // before the one after that
  TimePoint hindered_at_{};
  bool gpus_ordered_ = false;
  bool lost_ = false;
  bool may_empty_gpus_ = false;
  double counted_ = 0;
};

}  // namespace eplbd::simulation
