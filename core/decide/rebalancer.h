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
#include "core/decide/decision.h"
#include "core/decide/gain_tracker.h"
#include "core/load/adaptive_window.h"
#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "core/model/placement.h"
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
  PlacementId highest;                  // (term, version) that was ever given out or heard
  bool new_term = true;                 // the next placement needs one
  PlacementUpdate published;            // the newest placement; (0, 0): the initial one
  Placement initial;                    // as workers started
  std::deque<PlacementUpdate> history;  // earlier ones, newest first
  struct Spent {
    double unix_seconds = 0;
    int64_t moves = 0;
  };
  std::deque<Spent> spent;   // updates of the last hour, oldest first
  std::optional<Mode> mode;  // set by an operator; nothing: the configuration's
  bool paused = false;
  double paused_until_unix_seconds = 0;  // 0: until resumed
  std::vector<int32_t> gpus_down;        // as operators want it
  std::vector<int32_t> gpus_lost;        // of those, no source of weights either
};

class Rebalancer {
 public:
  // Starts from the initial placement, or from what was recovered. Not recovered: the first
  // decision is held two seconds, so that groups can say what they run, and the next placement
  // gets a new term. Requires: topology.problems() is empty; a recovered state of its shape.
  Rebalancer(const Topology& topology, const RebalancerOptions& options, Now now,
             std::optional<RebalancerState> recovered = std::nullopt);

  IngestResult ingest(const CountsReport& report, Now now);
  // What the last ingest() added [layers, logical_experts]; empty: nothing. Until the next call.
  std::span<const uint32_t> added() const { return admitted_.counts; }
  ObserveResult observe(const StateReport& report, Now now);
  // What time alone changes: call it before each decision.
  ObserveResult advance(Now now);

  // Changes nothing. A decision with verdict `update`: save state_after(), publish, record().
  // With publish_again: publish published() again, record(). Anything else: record() it too.
  Decision decide(Now now) const;

  // What to save before the decision's update is published; what to save otherwise.
  RebalancerState state_after(const Decision& decision, Now now) const;
  RebalancerState state() const;

  // The decision was carried out. False, and nothing changes, when the group was meanwhile found
  // to run something else than the decision was planned from.
  bool record(const Decision& decision, Now now);

  // What operators ask for: plans without the trigger's rules; carried out like decide()'s. Where
  // it must refuse, there is no update and `detail` says why. Rollback and import pause.
  Decision plan_rebalance(Now now) const;
  Decision plan_rollback(std::optional<uint64_t> version, Now now) const;
  Decision plan_import(const Placement& placement, Now now) const;

  // GPUs that are to hold nothing; the next decisions see to it. Why it is impossible, or nothing.
  std::optional<std::string> set_gpus_down(std::vector<int32_t> down, std::vector<int32_t> lost);
  void set_options(const RebalancerOptions& options, Now now);
  void set_mode(std::optional<Mode> mode) { mode_ = mode; }
  void pause(double until_unix_seconds);  // 0: until resumed
  void resume() { paused_ = false; }

  // ---- What is seen from outside ----
  const Topology& topology() const { return *topology_; }
  const RebalancerOptions& options() const { return options_; }
  Mode mode() const { return mode_.value_or(options_.mode); }
  bool paused(Now now) const;
  double paused_until() const { return paused_until_unix_seconds_; }  // 0: until resumed
  const GroupState& group() const { return group_; }
  const SourceTable& sources() const { return sources_; }
  int32_t live_sources(Now now) const;
  int32_t sources_behind(Now now) const;     // live, naming another placement than the newest
  std::vector<double> loads(Now now) const;  // [layers, logical_experts] the window
  double tokens(Now now) const { return window_.tokens(now.steady); }
  Duration half_life() const { return window_.half_life(); }
  double measured_imbalance(Now now) const;  // from gpu_tokens; 0 where none came
  std::optional<double> gain_realised() const { return gain_.realised(*topology_); }
  const std::vector<int32_t>& gpus_down() const { return gpus_down_; }

 private:
  using Rule = std::optional<Verdict>;
  Rule check_reports(Now now, Decision& decision) const;
  Rule check_trigger(Now now, Decision& decision) const;
  Rule check_limits(Now now, MoveBudget& budget, std::string& detail) const;
  Decision measure(Now now, std::vector<double>& loads) const;
  void solve(Now now, std::span<const double> loads, UpdateReason reason, MoveBudget budget,
             double min_gain, Decision& decision) const;
  void set_candidate(Now now, std::span<const double> loads, Placement candidate,
                     UpdateReason reason, Decision& decision) const;
  Decision refused(Now now, std::string why) const;
  bool searched_in_vain(Now now, const Decision& decision) const;
  bool gpus_to_change() const;
  Duration cooldown() const;
  // Runs `change` on the group, and tells gain_ what came of it.
  template <typename Change>
  ObserveResult change_group(Change change);

  std::shared_ptr<const Topology> topology_;  // shared with what refers to it
  RebalancerOptions options_;
  std::shared_ptr<const Balancer> balancer_;
  SourceTable sources_;
  SourceTable::Admitted admitted_;  // of the last ingest(), into sources_
  AdaptiveWindow window_;
  std::optional<LoadWindow> gpu_window_;  // measured tokens [layers, gpus]
  GroupState group_;
  GainTracker gain_;
  double apply_seconds_ = 0;  // that the last update took, as the group says
  std::optional<Mode> mode_;
  bool paused_ = false;
  double paused_until_unix_seconds_ = 0;
  std::vector<int32_t> gpus_down_;
  std::vector<int32_t> gpus_lost_;
  std::deque<RebalancerState::Spent> spent_;
  TimePoint hold_until_{};                // a fresh start waits for reports
  std::optional<TimePoint> shadowed_at_;  // last would_update: it counts as applied
  struct InVain {
    TimePoint at;
    double imbalance = 0;
    Verdict verdict = Verdict::no_better;
    std::string detail;
  };
  std::optional<InVain> in_vain_;  // the last search, where it led to no update
};

}  // namespace eplbd
