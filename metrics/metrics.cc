// SPDX-License-Identifier: Apache-2.0
#include "metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <iterator>

#include "metrics/process_metrics.h"

namespace eplbd {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;
using prometheus::MetricFamily;

constexpr int kModes = 3;

// Factor 2.5 or so: a decision without a solve takes microseconds, a solve of the largest models
// tenths of a second.
const Histogram::BucketBoundaries kDecideBuckets = {1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4,
                                                    1e-3, 2.5e-3, 5e-3, 0.01, 0.025,  0.05,
                                                    0.1,  0.25,   0.5,  1,    2.5};
// Engines move weights for seconds, some for minutes.
const Histogram::BucketBoundaries kApplySeconds = {0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};
const Histogram::BucketBoundaries kReactionBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                      0.25,  0.5,    1,     2.5,  5,     10};

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

std::optional<double> unless_zero(double value) {
  return value == 0 ? std::nullopt : std::optional<double>(value);
}

// Hash order would change from scrape to scrape for those who read it.
void sort_series(std::vector<MetricFamily>& families) {
  std::sort(families.begin(), families.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  for (MetricFamily& family : families) {
    std::sort(family.metric.begin(), family.metric.end(),
              [](const auto& a, const auto& b) { return a.label < b.label; });
  }
}

}  // namespace

// Families are members in the order of docs/metrics.md; children are looked up once, here.
struct Metrics::Impl {
  Impl(std::string_view deployment, const Topology& topology, std::string_view version);

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
  template <typename Enum>
  std::vector<Counter*> counters_by(const char* name, const char* help, const char* label,
                                    int values) {
    Family<Counter>& family = counters(name, help);
    std::vector<Counter*> children;
    for (int value = 0; value < values; ++value) {
      children.push_back(&family.Add({{label, std::string(to_string(static_cast<Enum>(value)))}}));
    }
    return children;
  }

  const Labels constant;
  prometheus::Registry registry;
  ProcessMetrics process;

  std::vector<Gauge*> mode;
  Gauge& paused = gauge("eplbd_paused", "1 while an operator holds updates.");
  Gauge& leader = gauge("eplbd_leader", "1 if this process may publish; 1 when alone.");
  Gauge& config_last_reload_successful =
      gauge("eplbd_config_last_reload_successful",
            "1 if the configuration in force is the one last asked for; 0: a reload was refused.");
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
      "reason", kCount<RejectReason>);
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
  OptionalGauge imbalance_measured = optional_gauge(
      "eplbd_imbalance_measured",
      "Imbalance of the tokens that GPUs really received; absent while workers send none.");
  OptionalGauge imbalance_floor = optional_gauge(
      "eplbd_imbalance_floor", "The least imbalance that this many tokens allow any placement.");
  OptionalGauge imbalance_predicted =
      optional_gauge("eplbd_imbalance_predicted",
                     "Imbalance that the last candidate was predicted to have; absent before one.");
  Gauge& imbalance_threshold =
      gauge("eplbd_imbalance_threshold", "Imbalance above which a new placement is planned.");
  OptionalGauge gain_realised =
      optional_gauge("eplbd_gain_realised",
                     "Imbalance of the previous placement less that of the one in force, both on "
                     "the load that came since; absent before an update.");
  std::vector<OptionalGauge> layer_imbalance;
  std::vector<OptionalGauge> gpu_load_ratio;
  Gauge& window_half_life =
      gauge("eplbd_window_half_life_seconds", "Half-life of the load window in force.");

  std::vector<Counter*> decisions = counters_by<Verdict>(
      "eplbd_decisions_total", "Decisions, by verdict.", "verdict", kCount<Verdict>);
  std::vector<Counter*> updates = counters_by<UpdateReason>(
      "eplbd_updates_total", "Placements published, by reason.", "reason", kCount<UpdateReason>);
  Counter& moves =
      counter("eplbd_moves_total", "Slots whose new expert its GPU had to fetch, published.");
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

Metrics::Impl::Impl(std::string_view deployment, const Topology& topology, std::string_view version)
    : constant{{"deployment", std::string(deployment)}}, process(constant) {
  gauges("eplbd_build_info", "1, labelled with the version that runs.")
      .Add({{"version", std::string(version)}})
      .Set(1);
  Family<Gauge>& modes = gauges("eplbd_mode", "1 for the mode in force, 0 for the others.");
  for (int value = 0; value < kModes; ++value) {
    mode.push_back(&modes.Add({{"mode", std::string(to_string(static_cast<Mode>(value)))}}));
  }
  Family<Gauge>& layers = gauges("eplbd_layer_imbalance",
                                 "Max GPU load over mean of a layer, by the model's own number.");
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    layer_imbalance.emplace_back(layers,
                                 Labels{{"layer", std::to_string(topology.layer_id(layer))}});
  }
  Family<Gauge>& gpus = gauges("eplbd_gpu_load_ratio", "Load of a GPU over the mean, all layers.");
  for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) {
    gpu_load_ratio.emplace_back(gpus, Labels{{"gpu", std::to_string(gpu)}});
  }
  config_last_reload_successful.Set(1);
}

Metrics::Metrics(std::string_view deployment, const Topology& topology, std::string_view version)
    : impl_(std::make_unique<Impl>(deployment, topology, version)) {
  refresh({});
}
Metrics::~Metrics() = default;

void Metrics::counts(const IngestResult& result, size_t bytes) {
  if (result.lost > 0) impl_->counts_lost.Increment(static_cast<double>(result.lost));
  if (result.restarted) impl_->source_restarts.Increment();
  if (result.rejected) return rejected(*result.rejected);
  if (result.duplicate) return impl_->counts_duplicates.Increment();
  impl_->counts_messages.Increment();
  impl_->counts_bytes.Increment(static_cast<double>(bytes));
  impl_->counts_tokens.Increment(static_cast<double>(result.tokens));
  if (result.inconsistent) impl_->counts_inconsistent.Increment();
  if (result.reset) impl_->counts_resets.Increment();
}

void Metrics::state(const ObserveResult& result) {
  if (result.lost > 0) impl_->counts_lost.Increment(static_cast<double>(result.lost));
  if (result.restarted) impl_->source_restarts.Increment();
  if (result.rejected) return rejected(*result.rejected);
  if (result.duplicate) return impl_->counts_duplicates.Increment();
  impl_->state_messages.Increment();
  advanced(result);
}

void Metrics::advanced(const ObserveResult& result) {
  if (result.adopted) impl_->placements_adopted.Increment();
  if (result.failed) impl_->apply_failures.Increment();
  if (result.applied) impl_->apply_seconds.Observe(result.apply_seconds);
}

void Metrics::rejected(RejectReason reason) {
  impl_->counts_rejected[static_cast<size_t>(reason)]->Increment();
  if (reason == RejectReason::source_conflict) impl_->source_conflicts.Increment();
}

void Metrics::counts_connection_ended() { impl_->counts_connections_ended.Increment(); }

void Metrics::decided(const Decision& decision, double seconds) {
  impl_->decisions[static_cast<size_t>(decision.verdict)]->Increment();
  impl_->decide_seconds.Observe(seconds);
  if (decision.imbalance_after > 0) impl_->imbalance_predicted.set(decision.imbalance_after);
}

void Metrics::updated(const PlacementUpdate& update, std::optional<double> reaction_seconds) {
  impl_->updates[static_cast<size_t>(update.reason)]->Increment();
  impl_->moves.Increment(static_cast<double>(update.moves.size()));
  if (reaction_seconds) impl_->reaction_seconds.Observe(*reaction_seconds);
}

void Metrics::published_again() { impl_->publications_repeated.Increment(); }

void Metrics::state_write_failed() { impl_->state_write_errors.Increment(); }

void Metrics::reloaded(bool ok) { impl_->config_last_reload_successful.Set(ok ? 1 : 0); }

void Metrics::refresh(const Snapshot& now) {
  for (int value = 0; value < kModes; ++value) {
    impl_->mode[static_cast<size_t>(value)]->Set(static_cast<Mode>(value) == now.mode ? 1 : 0);
  }
  impl_->paused.Set(now.paused ? 1 : 0);
  impl_->leader.Set(now.leader ? 1 : 0);
  impl_->workers.Set(static_cast<double>(now.workers));
  impl_->workers_behind.Set(static_cast<double>(now.workers_behind));
  impl_->last_counts_timestamp.set(now.last_counts_unix_seconds);

  impl_->imbalance.set(unless_zero(now.imbalance));
  impl_->balancedness.set(now.imbalance > 0 ? std::optional(1 / now.imbalance) : std::nullopt);
  impl_->imbalance_initial.set(unless_zero(now.imbalance_initial));
  impl_->imbalance_measured.set(unless_zero(now.imbalance_measured));
  impl_->imbalance_floor.set(unless_zero(now.imbalance_floor));
  impl_->imbalance_threshold.Set(now.imbalance_threshold);
  impl_->gain_realised.set(now.gain_realised);
  for (size_t layer = 0; layer < impl_->layer_imbalance.size(); ++layer) {
    impl_->layer_imbalance[layer].set(layer < now.layer_imbalance.size()
                                          ? unless_zero(now.layer_imbalance[layer])
                                          : std::nullopt);
  }
  for (size_t gpu = 0; gpu < impl_->gpu_load_ratio.size(); ++gpu) {
    impl_->gpu_load_ratio[gpu].set(
        gpu < now.gpu_load_ratio.size() ? std::optional(now.gpu_load_ratio[gpu]) : std::nullopt);
  }

  impl_->placement_version.Set(static_cast<double>(now.placement.version));
  impl_->placement_term.Set(static_cast<double>(now.placement.term));
  impl_->placement_timestamp.Set(now.placement_unix_seconds);
  impl_->gpus_down.Set(now.gpus_down);
  impl_->window_half_life.Set(now.window_half_life_seconds);
}

std::string Metrics::text() const {
  std::vector<MetricFamily> families = impl_->registry.Collect();
  std::vector<MetricFamily> process = impl_->process.Collect();
  std::move(process.begin(), process.end(), std::back_inserter(families));
  sort_series(families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace eplbd
