// Decides when a deployment gets a new placement, and which: window + placement in force + rules.
// The daemon and `replay` run this same class.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/decide/decision.h"
#include "core/decide/limits.h"
#include "core/decide/options.h"
#include "core/decide/problem.h"
#include "core/decide/rebalancer_state.h"
#include "core/decide/rules.h"
#include "core/decide/situation.h"
#include "core/load/load_window.h"
#include "core/model/placement.h"
#include "core/model/time.h"
#include "core/model/topology.h"
#include "core/workers/group_state.h"
#include "core/workers/source_table.h"
#include "core/workers/worker_report.h"

namespace eplbd {

class Rebalancer {
 public:
  // Starts from the initial placement, or from what was recovered. Not recovered, or with new_term:
  // the first decision is held two seconds, so that groups can say what they run, and the next
  // placement gets a new term. Requires: topology.problems() is empty; a recovered state of its
  // shape, or one that it was resized to.
  Rebalancer(const Topology& configured, const RebalancerOptions& options, Now now,
             std::optional<RebalancerState> recovered = std::nullopt);

  IngestResult ingest(const CountsReport& report, Now now);
  ObserveResult observe(const StateReport& report, Now now);
  // What time alone changes: call it before each decision.
  ObserveResult advance(Now now);

  // Another daemon's state takes the place of this one's, in which no group was told anything by
  // us; what was heard of load stays. What is published next has a new term. Requires: its shape,
  // or one that it was resized to.
  void follow(RebalancerState next, Now now);
  // What is published next has a term no lower than this.
  void begin_term(uint64_t term);

  // Changes nothing. A decision with verdict `update`: save state_after(), publish, record().
  // With publish_again: publish published() again, record(). Anything else: record() it too.
  Decision decide(Now now) const { return eplbd::decide(situation_, now); }

  // What to save before the decision's update is published; what to save otherwise.
  RebalancerState state_after(const Decision& decision) const;
  const RebalancerState& state() const { return situation_.state; }

  // The decision was carried out. False, and nothing changes, when the group was meanwhile found
  // to run something else than the decision was planned from.
  bool record(const Decision& decision);
  // It was not, though it may have been saved: its name is given to no other placement.
  void give_up(const Decision& decision);

  // Until others may be told of what the group was found to run; nothing: there is no such thing.
  std::optional<double> seconds_to_adopted(Now now) const;
  // They are told, once the state is saved; the next such waits for twice as long. Requires: 0.
  void tell_adopted(Now now);

  // What operators ask for: plans without the trigger's rules; carried out like decide()'s. Where
  // it must refuse, there is no update and `detail` says why. Rollback and import pause.
  Decision plan_rebalance(Now now) const { return eplbd::plan_rebalance(situation_, now); }
  Decision plan_rollback(std::optional<uint64_t> version, Now now) const {
    return eplbd::plan_rollback(situation_, version, now);
  }
  Decision plan_import(const Placement& placement, Now now) const {
    return eplbd::plan_import(situation_, placement, now);
  }
  // What was published last, under a name of our own: after we took over from another daemon.
  Decision plan_recovered(Now now) const { return eplbd::plan_recovered(situation_, now); }

  // The group grew or shrank to this shape: planned from what it carried over, as few moves as the
  // shape asks for. Once it is recorded, all is of that shape.
  Decision plan_resize(Shape shape, Now now) const {
    return eplbd::plan_resize(situation_, shape, now);
  }

  // GPUs that are to hold nothing; the next decisions see to it. Why it is impossible, or nothing.
  std::optional<std::string> set_gpus_down(std::vector<int32_t> down, std::vector<int32_t> lost);
  void fill_again(int32_t gpu);  // whatever the group reported of it
  void set_options(const RebalancerOptions& options, Now now);
  void set_mode(std::optional<Mode> mode) { situation_.state.mode = mode; }
  void pause(double until_unix_seconds);  // 0: until resumed
  void resume() { situation_.state.paused = false; }

  // ---- What is seen from outside ----
  const Topology& topology() const { return situation_.topology; }
  const Topology& configured() const { return situation_.configured; }
  const RebalancerOptions& options() const { return situation_.options; }
  Mode mode() const { return situation_.mode(); }
  bool paused(Now now) const { return situation_.paused(now.steady); }
  SpentInHour spent_in_hour(Now now) const { return eplbd::spent_in_hour(situation_, now.steady); }
  double paused_until() const { return situation_.state.paused_until_unix_seconds; }
  const GroupState& group() const { return situation_.group; }
  const SourceTable& sources() const { return situation_.sources; }
  int32_t live_sources(Now now) const;
  int32_t sources_behind(Now now) const;  // live, naming another placement than the newest
  std::vector<double> loads(Now now) const { return situation_.loads(now.steady); }
  double tokens(Now now) const { return situation_.window.tokens(now.steady); }
  Duration half_life() const { return situation_.window.half_life(); }
  // From gpu_tokens that came under the placement in force; 0: none did.
  double measured_imbalance(Now now) const;
  // As of the last advance(), or change of the placement in force.
  std::optional<double> gain_realised() const {
    return situation_.gain.realised(situation_.topology);
  }
  // By an operator's order, or by the group's report; sorted.
  const std::vector<int32_t>& gpus_down() const { return situation_.gpus_down; }
  std::vector<Problem> problems(Now now) const { return problems_of(situation_, now.steady); }

 private:
  void keep_gpu_tokens(const IngestResult& result, TimePoint now);
  void pour(TimePoint now);
  LoadWindow empty_gpu_window() const;
  LoadWindow& gpu_window();
  void take_up(RebalancerState next, TimePoint now);
  bool resize(const CarriedMap& carried, TimePoint now);
  void follow_clock(Now now);
  void bound_dates(Now now);
  void follow_jump(TimePoint now);
  void note_gpus();
  // Runs `change` on the group, and tells the gain tracker what came of it.
  template <typename Change>
  ObserveResult change_group(Change change, TimePoint now);

  Situation situation_;
  // Measured tokens [layers, gpus], all of them under the placement in force.
  std::optional<LoadWindow> gpu_window_;
  TimePoint in_force_since_{};
  PlacementId last_applied_;
};

}  // namespace eplbd
