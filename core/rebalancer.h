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

#include "core/adaptive_window.h"
#include "core/balancer.h"
#include "core/imbalance.h"
#include "core/migration.h"
#include "core/placement.h"
#include "core/source_table.h"
#include "core/time.h"
#include "core/topology.h"
#include "core/worker_report.h"

namespace eplbd {

enum class Mode { observe, shadow, active };
std::string_view to_string(Mode mode);
std::optional<Mode> mode_from(std::string_view name);

struct TriggerOptions {
  double imbalance = 1.10;              // whole model's, above which we act
  double settle = 1.05;                 // of a layer: where an update stops improving it
  Duration interval = std::chrono::milliseconds(100);  // how often it decides
  Duration cooldown = std::chrono::seconds(5);         // since the last placement was applied
  int64_t min_tokens = 0;               // routed tokens in the window
  int64_t min_tokens_per_gpu_step = 64; // below some size, time does not follow tokens
  double min_gain = 0.01;               // least drop of the whole model's imbalance
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
  std::string engine;                              // the one followed; empty: the first heard
  Duration timeout = std::chrono::seconds(30);     // silent longer: no longer live
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

// In the order in which they are tested; the label values of eplbd_decisions_total{verdict}.
enum class Verdict {
  observing, paused, no_counts, too_few_tokens, topology_mismatch, applying, apply_failed,
  cooling_down, balanced, rate_limited, no_better, gain_too_small, invalid_candidate, update,
  would_update
};
inline constexpr int kVerdicts = 15;
std::string_view to_string(Verdict verdict);

enum class UpdateReason { initial, threshold, requested, imported, rollback, recovered, gpu };
inline constexpr int kUpdateReasons = 7;
std::string_view to_string(UpdateReason reason);
std::optional<UpdateReason> update_reason_from(std::string_view name);

// A placement as published: what a placement message, the state file and the API say.
struct PlacementUpdate {
  PlacementId id;
  PlacementId base;                     // what it was planned from
  double unix_seconds = 0;              // of the decision
  UpdateReason reason = UpdateReason::initial;
  Placement placement;
  std::vector<int32_t> changed_layers;  // best gain first
  std::vector<Move> moves;
  std::vector<int32_t> gpus_down;
  double imbalance_before = 0;          // predicted on the load window; 0: not known
  double imbalance_after = 0;
};

// One answer to "is the placement in force still good enough?", with what it was decided from.
struct Decision {
  Verdict verdict = Verdict::no_counts;
  double imbalance = 0;        // of the placement in force, now; 0: no tokens
  double imbalance_after = 0;  // of the candidate; 0: none was made
  double tokens = 0;           // in the window
  double tokens_per_gpu_step = 0;
  int64_t moves = 0;
  int64_t worst_gpu_moves = 0;
  bool solved = false;         // the balancer ran
  std::string detail;          // a sentence for people, with the numbers
  std::optional<PlacementUpdate> update;  // verdict update (publish it) or would_update (do not)
  bool publish_again = false;  // apply_failed: the same placement is due once more
};

// What must outlive the process: see daemon/state_file.
struct RebalancerState {
  PlacementId highest;                   // (term, version) that was ever given out or heard
  PlacementUpdate published;             // the newest placement; (0, 0): the initial one
  std::vector<PlacementUpdate> history;  // earlier ones, newest first, without their moves
  std::optional<Mode> mode;              // set by an operator; nothing: the configuration's
  bool paused = false;
  double paused_until_unix_seconds = 0;  // 0: until resumed
  std::vector<int32_t> gpus_down;
  std::vector<int32_t> gpus_lost;        // of those, no source either
};

// What became of a state report.
struct ObserveResult {
  std::optional<RejectReason> rejected;
  bool duplicate = false;
  bool restarted = false;
  uint64_t lost = 0;
  bool applied = false;          // the published placement is now in force
  double apply_seconds = -1;     // said by the group, or measured from its publication; with applied
  bool failed = false;           // newly failed or refused
  bool adopted = false;          // a map that we did not expect is now in force: save the state
  bool topology_mismatch = false;
  std::string detail;
};

class Rebalancer {
 public:
  // Starts from the initial placement, or from what was recovered. Not recovered: the first
  // decision is held two seconds, so that groups can say what they run, and the next placement
  // gets a new term.
  Rebalancer(const Topology& topology, const RebalancerOptions& options, Now now,
             std::optional<RebalancerState> recovered = std::nullopt);
  ~Rebalancer();

  IngestResult ingest(const CountsReport& report, Now now);
  ObserveResult observe(const StateReport& report, Now now);

  // Changes nothing. A decision with an update: save state_after(), publish, then record().
  Decision decide(Now now) const;

  // What to save before the decision's update is published.
  RebalancerState state_after(const Decision& decision) const;
  RebalancerState state() const;

  // The decision was carried out (an update: published). Requires: made by this object, and
  // nothing was adopted in between (else it returns false and changes nothing).
  bool record(const Decision& decision, Now now);

  // What operators ask for. They plan without the trigger's rules; carried out like decide()'s.
  // Each returns a decision without update, with the reason in `detail`, where it must refuse.
  Decision plan_rebalance(Now now) const;
  Decision plan_rollback(std::optional<uint64_t> version, Now now) const;
  Decision plan_import(const Placement& placement, Now now) const;
  Decision plan_gpus_down(std::vector<int32_t> down, Now now) const;

  void set_options(const RebalancerOptions& options, Now now);
  void set_mode(std::optional<Mode> mode);
  void pause(std::optional<double> until_unix_seconds);
  void resume();

  // ---- What is seen from outside ----
  const Topology& topology() const;
  const RebalancerOptions& options() const;
  Mode mode() const;
  bool paused(Now now) const;
  const PlacementUpdate& published() const;   // the newest placement
  const Placement& in_force() const;          // what workers run, as far as we know
  PlacementId running() const;                // by this name
  const Placement& initial() const;
  bool applied() const;                       // running() is published()
  std::vector<double> loads(Now now) const;   // [layers, logical_experts] the window
  double tokens(Now now) const;
  Duration half_life() const;
  // Measured imbalance from gpu_tokens; 0 where none came.
  double measured_imbalance(Now now) const;
  const SourceTable& sources() const;
  const std::vector<int32_t>& gpus_down() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
