// What must hold whatever happens, checked against nothing but what a deployment says and does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <set>
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
  void hindered() { hindered_at_ = schedule_.now(); }  // by its disk, or as it just began
  void lost_its_state();              // what is named may go back, and what was spent is forgotten
  void lost_its_dates();              // the clock was set, and not one save went through
  void took_over() { ++takeovers_; }  // one daemon from another
  void ordered_gpus() { gpus_ordered_ = true; }
  void may_empty_gpus() { may_empty_gpus_ = true; }  // the group says so, or does
  void counted(double tokens) { counted_ += tokens; }

  // ---- What a daemon does; its deployment, or null while that starts ----
  // It is what subscribers get from here on.
  void held(const PlacementUpdate& update, const Deployment* deployment);
  void named(PlacementId id, bool leads);  // in a placement or a heartbeat
  void check_window(const Deployment& deployment) const;
  void check_decides(const Deployment& deployment) const;
  // Long after the last fault. `serves`: null where none does; `running`: what the group runs;
  // `tokens_per_second`: all of them.
  void check_settled(Now now, const Deployment* serves, PlacementId running,
                     double tokens_per_second) const;

 private:
  struct Spent {
    TimePoint at;
    bool forced = false;
    int64_t moves = 0;
  };
  [[noreturn]] void fail(std::string rule, std::string detail) const;
  void check_adopted(PlacementId id);
  void check_rails(const PlacementUpdate& update, const Deployment* deployment);
  bool is_ordered(UpdateReason reason);
  void check_limits(const PlacementUpdate& update) const;

  const Scenario& scenario_;
  const Schedule& schedule_;
  const Disk& disk_;
  std::map<PlacementId, Placement> maps_;  // of every name
  PlacementId named_;                      // the newest
  PlacementId highest_named_;              // ever, whatever was lost
  std::vector<Spent> spent_;
  std::set<PlacementId> adopted_held_;  // and not named yet
  std::optional<TimePoint> adopted_;    // when the last such was to be told
  Duration adopted_pause_{};            // before the one after that
  TimePoint hindered_at_{};
  TimePoint dates_lost_at_{};
  bool gpus_ordered_ = false;
  int32_t takeovers_ = 0;  // whose update was not seen yet
  bool lost_ = false;
  bool may_empty_gpus_ = false;
  double counted_ = 0;
};

}  // namespace eplbd::simulation
