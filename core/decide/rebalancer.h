// Decides when a deployment gets a new placement, and which: window + placement in force + rules.
// The daemon and `replay` run this same class.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/balance/balancer.h"
#include "core/decide/candidate.h"
#include "core/decide/decision.h"
#include "core/decide/gain_tracker.h"
#include "core/decide/problem.h"
#include "core/load/adaptive_window.h"
#include "core/load/jump_detector.h"
#include "core/model/placement.h"
#include "core/model/placement_log.h"
#include "core/model/time.h"
#include "core/model/topology.h"
#include "core/workers/group_state.h"
#include "core/workers/source_table.h"
#include "core/workers/worker_report.h"

namespace eplbd {

struct TriggerOptions {
  // Of a layer: above which we act, where the whole model gains enough by it.
  double imbalance = 1.10;
  double settle = 1.05;  // of a layer: where an update stops improving it
  Duration interval = std::chrono::milliseconds(100);  // how often it decides
  Duration cooldown = std::chrono::seconds(5);         // since the last placement was applied
  int64_t min_tokens = 0;                              // routed tokens in the window
  int64_t min_tokens_per_gpu_step = 64;  // below some size, time does not follow tokens
  double min_gain = 0.01;                // least drop of the whole model's imbalance
};

struct LimitOptions {  // 0: no limit
  int64_t updates_per_hour = 120;
  int64_t moves_per_hour = 0;
  int64_t max_moves = 0;          // of one update
  int64_t max_moves_per_gpu = 0;  // incoming, of one update
  int64_t max_layers = 0;         // of one update
  int64_t sources = 4096;
};

struct WorkerOptions {
  std::string engine;                           // the one followed; empty: the first heard
  Duration timeout = std::chrono::seconds(30);  // silent longer: no longer live
  Duration apply_timeout = std::chrono::seconds(120);
};

// What a reload may change, with the mode.
struct RebalancerOptions {
  Mode mode = Mode::active;
  WindowOptions window;
  TriggerOptions trigger;
  LimitOptions limits;
  BalancerOptions balancer;
  WorkerOptions workers;
};

// What must outlive the process: see daemon/store/state_file.
struct RebalancerState {
  PlacementLog placements;
  struct Spent {
    double unix_seconds = 0;
    int64_t moves = 0;
    bool forced = false;  // by what the group reported
    bool operator==(const Spent&) const = default;
  };
  std::deque<Spent> spent;   // updates of the last hour, oldest first
  std::optional<Mode> mode;  // set by an operator; nothing: the configuration's
  bool paused = false;
  double paused_until_unix_seconds = 0;  // 0: until resumed
  std::vector<int32_t> gpus_down;        // as operators want it
  std::vector<int32_t> gpus_lost;        // of those, no source of weights either
  std::vector<int32_t> gpus_empty;       // as the group reports them
  bool operator==(const RebalancerState&) const = default;
};

class Rebalancer {
 public:
  // Starts from the initial placement, or from what was recovered. Not recovered, or with new_term:
  // the first decision is held two seconds, so that groups can say what they run, and the next
  // placement gets a new term. Requires: topology.problems() is empty; a recovered state of its
  // shape.
  Rebalancer(const Topology& topology, const RebalancerOptions& options, Now now,
             std::optional<RebalancerState> recovered = std::nullopt);
  Rebalancer(const Rebalancer&) = delete;  // its parts refer to each other
  Rebalancer& operator=(const Rebalancer&) = delete;

  IngestResult ingest(const CountsReport& report, Now now);
  ObserveResult observe(const StateReport& report, Now now);
  // What time alone changes: call it before each decision.
  ObserveResult advance(Now now);

  // Changes nothing. A decision with verdict `update`: save state_after(), publish, record().
  // With publish_again: publish published() again, record(). Anything else: record() it too.
  Decision decide(Now now) const;

  // What to save before the decision's update is published; what to save otherwise.
  RebalancerState state_after(const Decision& decision) const;
  const RebalancerState& state() const { return state_; }

  // The decision was carried out. False, and nothing changes, when the group was meanwhile found
  // to run something else than the decision was planned from.
  bool record(const Decision& decision);
  // It was not, though it may have been saved: its name is given to no other placement.
  void give_up(const Decision& decision);

  // What operators ask for: plans without the trigger's rules; carried out like decide()'s. Where
  // it must refuse, there is no update and `detail` says why. Rollback and import pause.
  Decision plan_rebalance(Now now) const;
  Decision plan_rollback(std::optional<uint64_t> version, Now now) const;
  Decision plan_import(const Placement& placement, Now now) const;

  // GPUs that are to hold nothing; the next decisions see to it. Why it is impossible, or nothing.
  std::optional<std::string> set_gpus_down(std::vector<int32_t> down, std::vector<int32_t> lost);
  void fill_again(int32_t gpu);  // whatever the group reported of it
  void set_options(const RebalancerOptions& options, Now now);
  void set_mode(std::optional<Mode> mode) { state_.mode = mode; }
  void pause(double until_unix_seconds);  // 0: until resumed
  void resume() { state_.paused = false; }

  // ---- What is seen from outside ----
  const Topology& topology() const { return topology_; }
  const RebalancerOptions& options() const { return options_; }
  Mode mode() const { return state_.mode.value_or(options_.mode); }
  bool paused(Now now) const;
  double paused_until() const { return state_.paused_until_unix_seconds; }  // 0: until resumed
  const GroupState& group() const { return group_; }
  const SourceTable& sources() const { return sources_; }
  int32_t live_sources(Now now) const;
  int32_t sources_behind(Now now) const;     // live, naming another placement than the newest
  std::vector<double> loads(Now now) const;  // [layers, logical_experts] the window
  double tokens(Now now) const { return window_.tokens(now.steady); }
  Duration half_life() const { return window_.half_life(); }
  // From gpu_tokens that came under the placement in force; 0 where none did.
  double measured_imbalance(Now now) const;
  std::optional<double> gain_realised() const { return gain_.realised(topology_); }
  // By an operator's order, or by the group's report; sorted.
  const std::vector<int32_t>& gpus_down() const { return gpus_down_; }
  std::vector<Problem> problems(Now now) const;

 private:
  // What ends a decision, and a sentence why; a rule says nothing where it lets it go on.
  struct Answer {
    Verdict verdict;
    std::string detail;
  };
  using Rule = std::optional<Answer>;
  // What a search is for. An update must gain so much; nothing: it must be, whatever it gains.
  struct Aim {
    UpdateReason reason;
    MoveBudget budget;
    std::optional<double> least_gain;
  };

  // rebalancer_decide.cc
  Measured measure_now(Now now) const;
  Decision begin(const Measured& measured, Now now) const;
  Rule check_reports(const Decision& decision) const;
  Rule check_trigger(const Decision& decision) const;
  Rule check_limits(const Decision& decision, MoveBudget& budget) const;
  Rule check_last_search(const Decision& decision) const;
  Rule check_forced(const Decision& decision, MoveBudget& budget) const;
  Decision force(const Measured& measured, Decision decision) const;
  bool gpus_to_change() const;
  // Unix seconds of a moment, by the clock as advance() last saw it: rules go by this date, which
  // no jump of the wall clock moves against what they compare it with.
  double date(TimePoint moment) const {
    return clock_ahead_ + to_seconds(moment.time_since_epoch());
  }
  void follow_clock(Now now);
  void note_gpus();
  bool lacks_counts(Now now) const;

  // rebalancer_cooldown.cc
  void follow_jump(Now now);
  Duration cooldown() const;
  bool cooling_down(TimePoint now) const;
  Rule check_cooldown(TimePoint now) const;
  double least_gain(TimePoint now) const;

  // rebalancer_plan.cc
  static Decision answered(Decision decision, Answer answer);
  MoveBudget budget_of_an_update() const;
  Decision search(const Measured& measured, const Aim& aim, Decision decision) const;
  Proposal propose(const Measured& measured, const MoveBudget& budget) const;
  MeasuredCandidate consider(Placement placement, const Measured& measured,
                             Decision& decision) const;
  Rule judge(const MeasuredCandidate& candidate, const Aim& aim, const Decision& decision) const;
  Decision update_to(MeasuredCandidate candidate, const Measured& measured, UpdateReason reason,
                     Decision decision) const;
  Decision plan_given(const Placement& placement, UpdateReason reason, Now now) const;
  Decision refused(Now now, std::string why) const;

  // Runs `change` on the group, and tells gain_ what came of it.
  template <typename Change>
  ObserveResult change_group(Change change, TimePoint now);

  const Topology topology_;
  RebalancerOptions options_;
  RebalancerState state_;
  std::unique_ptr<const Balancer> balancer_;
  SourceTable sources_;
  AdaptiveWindow window_;
  JumpDetector jump_;
  std::optional<TimePoint> jumped_at_;  // the load; it is not answered yet
  // Measured tokens [layers, gpus], all of them under the placement in force.
  std::optional<LoadWindow> gpu_window_;
  TimePoint in_force_since_{};
  GroupState group_;
  GainTracker gain_;
  PlacementId last_applied_;
  double apply_seconds_ = 0;  // that the last update took, as the group says
  std::vector<int32_t> gpus_down_;
  bool gpus_ordered_ = false;  // by an operator, and no update saw to it yet
  double clock_ahead_ = 0;     // the wall clock's reading less the monotonic one's
  TimePoint started_{};
  TimePoint hold_until_{};                // a fresh start waits for reports
  std::optional<TimePoint> shadowed_at_;  // last would_update: it counts as applied
  struct InVain {
    TimePoint at;
    double imbalance = 0;
    double lacking = 0;  // of what it would have had to gain
    Answer answer;
  };
  std::optional<InVain> in_vain_;  // the last search, where it led to no update
};

}  // namespace eplbd
