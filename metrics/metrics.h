// Every metric family of eplbd in one place: what happened is told to it as events, what is so now
// as one Snapshot a scrape. Names, types and meaning: docs/metrics.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/decide/decision.h"
#include "core/decide/problem.h"
#include "core/model/placement.h"
#include "core/model/topology.h"
#include "core/workers/group_state.h"
#include "core/workers/source_table.h"
#include "core/workers/worker_report.h"

namespace eplbd {

// Content-Type of Metrics::text().
inline constexpr std::string_view kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

// A worker that counts.
struct SourceSnapshot {
  std::string name;
  uint64_t messages = 0;
  uint64_t lost = 0;
  bool behind = false;           // not on the newest placement
  double last_unix_seconds = 0;  // of its newest counts
};

// What is so at the moment of a scrape. Where core says "0: not known", so does this; the series is
// then absent rather than wrong.
struct Snapshot {
  Mode mode = Mode::active;
  bool paused = false;
  bool leader = true;  // alone, one leads

  size_t workers = 0;         // live sources
  size_t workers_behind = 0;  // of those, not yet on the newest placement
  std::optional<double> last_counts_unix_seconds;

  double imbalance = 0;                 // modelled, now, of the placement in force
  double imbalance_initial = 0;         // same load, had the initial placement been kept
  double imbalance_measured = 0;        // from gpu_tokens
  double imbalance_floor = 0;           // the best that this many tokens allow
  double imbalance_would_be = 0;        // had shadow's last update been made
  double imbalance_threshold = 0;       // trigger.imbalance, of a layer
  std::optional<double> gain_realised;  // of the last update; nothing: none to judge yet
  std::vector<double> layer_imbalance;  // [layers]; 0: a layer without load
  std::vector<double> gpu_load_ratio;   // [gpus] load / mean, all layers; empty: no tokens

  std::optional<int64_t> updates_left;  // of this hour's; nothing: no limit
  std::optional<int64_t> moves_left;
  double next_update_unix_seconds =
      0;  // from which cooldown, limits and a pause allow one; 0: now, or not known

  std::vector<SourceSnapshot> sources;  // those that are live; empty: none, or too many to name

  std::vector<Problem> problems;  // empty: healthy

  PlacementId placement;              // the newest one published
  double placement_unix_seconds = 0;  // of its decision; of the initial one, when it was taken up
  int gpus_down = 0;
  double window_half_life_seconds = 0;
};

// Not thread-safe: the loop owns it. Counting a message takes no lock, allocates nothing and
// builds no string.
class Metrics {
 public:
  // `version` is the program's. Closed label sets are there with zeros from here on.
  // `expert_bytes`: of the weights that a move fetches; 0: not known.
  Metrics(std::string_view deployment, const Topology& topology, std::string_view version,
          int64_t expert_bytes = 0);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // A counts or state message and what Rebalancer::ingest or observe said of it, rejected or not.
  void counts(const IngestResult& result, size_t bytes);
  void state(const ObserveResult& result);
  void rejected(RejectReason reason);  // before either saw it
  void counts_connection_ended();      // by a frame over the limit, or by the peer

  // What Rebalancer::advance said: applied, failed, adopted. (state() sees to that of messages.)
  void advanced(const ObserveResult& result);
  void decided(const Decision& decision, double seconds);
  // Sent for the first time. `reaction_seconds`: since the newest counts it was decided from.
  void updated(const PlacementUpdate& update, std::optional<double> reaction_seconds = {});
  void published_again();  // the placement in force once more: a late joiner, or not applied
  void state_write_failed();
  // The configuration was read, or refused.
  void reloaded(bool ok, double unix_seconds);

  void refresh(const Snapshot& now);

  double messages_rejected() const;                   // of any reason
  std::optional<double> mean_decide_seconds() const;  // nothing: no decision yet

  // Prometheus text format 0.0.4, with process_* as of this moment.
  std::string text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
