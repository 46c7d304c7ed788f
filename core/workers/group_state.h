// What the workers run, and what became of the placement that was published: the apply protocol.
// A published placement is a wish until the group reports it applied; what the group reports is
// the truth.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/model/placement.h"
#include "core/model/placement_log.h"
#include "core/model/time.h"
#include "core/model/topology.h"
#include "core/workers/reported_map.h"
#include "core/workers/worker_report.h"

namespace eplbd {

// What became of a state report, or of time passing.
struct ObserveResult {
  std::optional<RejectReason> rejected;
  bool duplicate = false;
  bool restarted = false;    // the sender
  uint64_t lost = 0;         // messages missing before this one
  bool applied = false;      // the published placement is now in force
  double apply_seconds = 0;  // with applied: as the group says, else since its publication
  bool failed = false;       // applying newly failed, was refused or timed out
  bool adopted = false;      // a map that we did not expect is in force: save the state
  bool topology_mismatch = false;
  std::string detail;  // a sentence for people, where any of these is true
};

class GroupState {
 public:
  // Keeps `log` up with what the group reports; both outlive it. Takes what was published for
  // applied until told otherwise. `empty_gpus`: see below; sorted.
  GroupState(const Topology& topology, PlacementLog& log, std::vector<int32_t> empty_gpus = {});

  // ---- What happens ----
  // The log was replaced, by that of another daemon.
  void take_up(std::vector<int32_t> empty_gpus);
  ObserveResult report(const StateReport& report, Now now);  // its sender was admitted already
  // No group reports state (any more): what every live source names in its counts.
  ObserveResult counts_name(PlacementId running, Now now);
  ObserveResult advance(Duration apply_timeout, TimePoint now);  // only time passed
  void publish(const PlacementUpdate& update, TimePoint now);
  void published_again(TimePoint now);
  void fill_again(int32_t gpu);  // an operator wants weights on it, whatever the group reported

  // ---- What is ----
  const PlacementUpdate& published() const { return log_.published; }
  const Placement& initial() const { return log_.initial; }
  // What runs; while the group applies, each layer is the base's or the published one's.
  const Placement& in_force() const { return in_force_; }
  PlacementId running() const { return running_; }
  bool pending() const { return pending_; }  // published, not applied
  bool failed() const { return failed_; }    // pending, and it does not go on by itself
  // Pending for longer than the group may take, whatever it says of that.
  bool overdue() const { return overdue_; }
  const std::string& failure() const { return failure_; }
  // What runs has no name that anybody else could know it by: sources name a placement above ours
  // whose map nobody reports, or the group runs another map than ours under our name.
  bool nameless() const { return unknown_ || renamed_; }
  // The rule that the reported map breaks, with who reports it; until a map is reported that is
  // whole.
  const std::optional<std::string>& broken() const { return broken_; }
  // The group can run with a GPU that holds nothing: it says so, or it does.
  bool may_empty_gpus() const { return may_empty_gpus_; }
  // GPUs that the group itself emptied, and did not report weights on again; sorted.
  const std::vector<int32_t>& empty_gpus() const { return empty_gpus_; }
  // The group reports another shape than the topology's; a sentence that says who and which.
  bool topology_mismatch() const;
  std::string mismatch() const;
  // With topology_mismatch(): what it holds in that shape. Null: it is one of another model, or one
  // in which not every GPU has as many slots.
  const CarriedMap* carried() const;
  std::optional<TimePoint> applied_at() const { return applied_at_; }
  std::optional<TimePoint> reported_at() const { return reported_at_; }
  bool due_again(Duration apply_timeout, TimePoint now) const;

 private:
  std::optional<RejectReason> check(const StateReport& report, Now now) const;
  bool is_real_version(uint64_t version) const;
  bool may_name(PlacementId id, Now now) const;
  void judge(const StateReport& report, const ReportedMap& map);
  bool progressed(const StateReport& report, Placement& map, TimePoint now);
  void set_applied(TimePoint now);
  void set_pending(TimePoint now);
  void adopt(PlacementId id, Placement placement, Now now, ObserveResult& result);
  void fall_behind(PlacementId id, Placement placement, TimePoint now, ObserveResult& result);
  void note_status(const StateReport& report, ObserveResult& result);
  void note_shape(const StateReport& report);

  const Topology& topology_;
  PlacementLog& log_;
  PlacementId running_;
  Placement in_force_;
  Placement base_;  // while pending: what ran when it was published
  bool pending_ = false;
  bool failed_ = false;
  bool overdue_ = false;
  bool unknown_ = false;
  bool renamed_ = false;
  std::optional<std::string> broken_;
  std::vector<int32_t> empty_gpus_;
  bool may_empty_gpus_ = false;
  std::string failure_;
  TimePoint pending_since_{};
  TimePoint sent_at_{};  // last publication of what is pending
  struct ReportedShape {
    std::string source;
    int64_t layers = 0;
    int64_t logical_experts = 0;
    int64_t slots = 0;
    int64_t gpus = 0;
  };
  std::optional<ReportedShape> shape_;  // as the group says; nothing: as we know it
  CarriedMap carried_;
  std::optional<TimePoint> applied_at_;
  std::optional<TimePoint> reported_at_;
};

}  // namespace eplbd
