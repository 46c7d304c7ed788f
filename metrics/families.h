// Every metric family with its name, help and labels.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/decide/decision.h"
#include "core/decide/problem.h"
#include "core/model/names.h"
#include "core/model/topology.h"
#include "core/workers/worker_report.h"
#include "metrics/metrics.h"
#include "metrics/process_metrics.h"

namespace eplbd {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;

// Factor 2.5 or so: a decision without a solve takes microseconds, a solve of the largest models
// tenths of a second.
inline const Histogram::BucketBoundaries kDecideBuckets = {1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4,
                                                           1e-3, 2.5e-3, 5e-3, 0.01, 0.025,  0.05,
                                                           0.1,  0.25,   0.5,  1,    2.5};
// Engines move weights for seconds, some for minutes.
inline const Histogram::BucketBoundaries kApplySeconds = {0.1, 0.25, 0.5, 1,   2.5, 5,
                                                          10,  30,   60,  120, 300};
inline const Histogram::BucketBoundaries kReactionBuckets = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};

// A gauge that is not there while nothing is known: a scrape shows no series instead of a lie.
class OptionalGauge {
 public:
  explicit OptionalGauge(Family<Gauge>& family, Labels labels = {})
      : family_(&family), labels_(std::move(labels)) {}

  void set(std::optional<double> value) {
    if (!value) {
      if (gauge_ != nullptr) family_->Remove(gauge_);
      gauge_ = nullptr;
      return;
    }
    if (gauge_ == nullptr) gauge_ = &family_->Add(labels_);
    gauge_->Set(*value);
  }

 private:
  Family<Gauge>* family_;
  Labels labels_;
  Gauge* gauge_ = nullptr;
};

// A gauge for each GPU, of as many as there are now.
class GpuFamily {
 public:
  explicit GpuFamily(Family<Gauge>& family) : family_(family) {}

  void set(const std::vector<double>& now);  // empty: nothing is known

 private:
  Family<Gauge>& family_;
  std::vector<OptionalGauge> gauges_;
};

// What each source sends, of as many sources as there are now.
class SourceFamilies {
 public:
  SourceFamilies(Family<Counter>& messages, Family<Counter>& lost, Family<Gauge>& behind,
                 Family<Gauge>& last)
      : messages_(messages), lost_(lost), behind_(behind), last_(last) {}

  void set(const std::vector<SourceSnapshot>& now);

 private:
  struct Series {
    Counter* messages;
    Counter* lost;
    Gauge* behind;
    Gauge* last;
  };
  Series add(const std::string& name);
  void remove(const Series& series);

  Family<Counter>& messages_;
  Family<Counter>& lost_;
  Family<Gauge>& behind_;
  Family<Gauge>& last_;
  std::map<std::string, Series> series_;
};

// In the order of docs/metrics.md; children are looked up once, here.
struct Families {
  Families(std::string_view deployment, const Topology& topology, std::string_view version,
           int64_t bytes_of_an_expert);

  Family<Gauge>& gauges(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Labels(constant).Register(registry);
  }
  Gauge& gauge(const char* name, const char* help) { return gauges(name, help).Add({}); }
  OptionalGauge optional_gauge(const char* name, const char* help) {
    return OptionalGauge(gauges(name, help));
  }
  Family<Counter>& counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Labels(constant).Register(registry);
  }
  Counter& counter(const char* name, const char* help) { return counters(name, help).Add({}); }
  Histogram& histogram(const char* name, const char* help,
                       const Histogram::BucketBoundaries& buckets) {
    return prometheus::BuildHistogram()
        .Name(name)
        .Help(help)
        .Labels(constant)
        .Register(registry)
        .Add({}, buckets);
  }

  // A counter for every value of an enumeration of core, under the names that core gives them.
  template <Named Enum>
  std::vector<Counter*> counters_by(const char* name, const char* help, const char* label) {
    Family<Counter>& family = counters(name, help);
    std::vector<Counter*> children;
    for (const std::string_view value : names(Enum{})) {
      children.push_back(&family.Add({{label, std::string(value)}}));
    }
    return children;
  }

  const Labels constant;
  prometheus::Registry registry;
  ProcessMetrics process;

  std::vector<Gauge*> mode;
  std::vector<Gauge*> problems;
  Gauge& paused = gauge("eplbd_paused", "1 while an operator holds updates.");
  Gauge& leader = gauge("eplbd_leader", "1 if this process may publish; 1 when alone.");
  Gauge& config_last_reload_successful =
      gauge("eplbd_config_last_reload_successful",
            "1 if the configuration in force is the one last asked for; 0: a reload was refused.");
  Gauge& config_last_reload_success_timestamp =
      gauge("eplbd_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read, in Unix seconds.");
  Counter& state_write_errors =
      counter("eplbd_state_write_errors_total", "Times that the state file could not be written.");

  Counter& counts_messages =
      counter("eplbd_counts_messages_total", "Counts messages that were accepted.");
  Counter& counts_bytes =
      counter("eplbd_counts_bytes_total", "Payload of the counts messages that were accepted.");
  Counter& counts_tokens = counter("eplbd_counts_tokens_total",
                                   "Routed (token, expert) pairs that were added to the window.");
  std::vector<Counter*> counts_rejected = counters_by<RejectReason>(
      "eplbd_counts_rejected_total", "Messages of workers that were dropped whole, by reason.",
      "reason");
  Counter& counts_lost = counter("eplbd_counts_lost_total",
                                 "Messages of workers that never came: gaps in their sequences.");
  Counter& counts_duplicates =
      counter("eplbd_counts_duplicates_total", "Messages of workers that came more than once.");
  Counter& counts_resets =
      counter("eplbd_counts_resets_total",
              "Running counters that started over without a new epoch, or went back.");
  Counter& counts_inconsistent =
      counter("eplbd_counts_inconsistent_total",
              "Counts messages whose layers disagree about how many tokens there were.");
  Counter& counts_connections_ended =
      counter("eplbd_counts_connections_ended_total",
              "Connections of workers that ended: closed by the peer, or by a frame over 4 MiB.");
  Counter& state_messages =
      counter("eplbd_state_messages_total", "State messages that were accepted.");
  Counter& source_restarts =
      counter("eplbd_source_restarts_total", "Sources that came back with a larger epoch.");
  Counter& source_conflicts =
      counter("eplbd_source_conflicts_total", "Messages of a second sender under one name.");
  Gauge& workers = gauge("eplbd_workers", "Sources heard within workers.timeout.");
  Gauge& workers_behind =
      gauge("eplbd_workers_behind", "Live sources that do not run the newest placement yet.");
  SourceFamilies sources{
      counters("eplbd_source_messages_total", "Counts messages of a source that were accepted."),
      counters("eplbd_source_lost_total", "Messages of a source that never came."),
      gauges("eplbd_source_behind", "1 if the source does not run the newest placement yet."),
      gauges("eplbd_source_last_counts_timestamp_seconds",
             "When counts of the source were last accepted, in Unix seconds.")};
  OptionalGauge last_counts_timestamp =
      optional_gauge("eplbd_last_counts_timestamp_seconds",
                     "When counts were last accepted, in Unix seconds; absent before the first.");

  OptionalGauge imbalance = optional_gauge(
      "eplbd_imbalance",
      "Max GPU load over mean, whole model, now, under the placement in force; absent without "
      "tokens.");
  OptionalGauge balancedness = optional_gauge(
      "eplbd_balancedness", "1 / eplbd_imbalance, as engines define it; absent without tokens.");
  OptionalGauge imbalance_initial =
      optional_gauge("eplbd_imbalance_initial",
                     "What eplbd_imbalance would be had the initial placement been kept.");
  OptionalGauge imbalance_would_be =
      optional_gauge("eplbd_imbalance_would_be",
                     "What eplbd_imbalance would be had the last update of mode shadow been made.");
  OptionalGauge imbalance_measured = optional_gauge(
      "eplbd_imbalance_measured",
      "Imbalance of the tokens that GPUs really received under the placement in force; absent "
      "while workers send none.");
  OptionalGauge imbalance_floor = optional_gauge(
      "eplbd_imbalance_floor", "The least imbalance that this many tokens allow any placement.");
  OptionalGauge imbalance_predicted =
      optional_gauge("eplbd_imbalance_predicted",
                     "Imbalance that the last candidate was predicted to have; absent before one.");
  Gauge& imbalance_threshold = gauge(
      "eplbd_imbalance_threshold", "Imbalance of a layer above which a new placement is planned.");
  OptionalGauge gain_realised =
      optional_gauge("eplbd_gain_realised",
                     "Imbalance of the previous placement less that of the one in force, both on "
                     "the load that came since; absent before an update.");
  std::vector<OptionalGauge> layer_imbalance;
  GpuFamily gpu_load_ratio{
      gauges("eplbd_gpu_load_ratio", "Load of a GPU over the mean, all layers.")};
  Gauge& window_half_life =
      gauge("eplbd_window_half_life_seconds", "Half-life of the load window in force.");

  std::vector<Counter*> decisions =
      counters_by<Verdict>("eplbd_decisions_total", "Decisions, by verdict.", "verdict");
  std::vector<Counter*> updates = counters_by<UpdateReason>(
      "eplbd_updates_total", "Placements published, by reason.", "reason");
  Counter& moves =
      counter("eplbd_moves_total", "Slots whose new expert its GPU had to fetch, published.");
  const double expert_bytes;
  Counter* moved_bytes = nullptr;  // where those are known
  OptionalGauge updates_left = optional_gauge(
      "eplbd_updates_left", "Updates that limits.updates_per_hour leaves; absent without a limit.");
  OptionalGauge moves_left = optional_gauge(
      "eplbd_moves_left", "Moves that limits.moves_per_hour leaves; absent without a limit.");
  OptionalGauge next_update_timestamp =
      optional_gauge("eplbd_next_update_timestamp_seconds",
                     "From when on cooldown, limits and a pause allow an update, in Unix seconds; "
                     "absent while they do, and where that is not known.");
  Counter& publications_repeated =
      counter("eplbd_publications_repeated_total",
              "Times that the placement in force was sent once more: a worker joined, or it was "
              "not applied in time.");
  Counter& placements_adopted =
      counter("eplbd_placements_adopted_total",
              "Maps that workers were found to run and that this process did not expect.");
  Histogram& decide_seconds =
      histogram("eplbd_decide_seconds", "Time that one decision took, in seconds.", kDecideBuckets);
  Histogram& apply_seconds =
      histogram("eplbd_apply_seconds", "Time that workers took to apply a placement, in seconds.",
                kApplySeconds);
  Histogram& reaction_seconds =
      histogram("eplbd_reaction_seconds", "From counts received to placement sent, in seconds.",
                kReactionBuckets);
  Counter& apply_failures =
      counter("eplbd_apply_failures_total",
              "Placements that workers failed or refused to apply, or did not apply in time.");
  Gauge& placement_version =
      gauge("eplbd_placement_version", "Version of the newest placement; 0: the initial one.");
  Gauge& placement_term = gauge("eplbd_placement_term", "Term of the newest placement.");
  Gauge& placement_timestamp =
      gauge("eplbd_placement_timestamp_seconds",
            "When the newest placement was decided, in Unix seconds; of the initial one, when the "
            "daemon took it up.");
  Gauge& gpus_down = gauge("eplbd_gpus_down", "GPUs that were taken out of placements.");
};

}  // namespace eplbd
