// SPDX-License-Identifier: Apache-2.0
#include "metrics/metrics.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <iterator>

#include "metrics/families.h"

namespace eplbd {
namespace {

using prometheus::MetricFamily;

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

struct Metrics::Impl : Families {
  using Families::Families;
};

Metrics::Metrics(std::string_view deployment, const Topology& topology, std::string_view version,
                 int64_t expert_bytes)
    : impl_(std::make_unique<Impl>(deployment, topology, version, expert_bytes)) {
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
  const auto moves = static_cast<double>(update.moves.size());
  impl_->moves.Increment(moves);
  if (impl_->moved_bytes != nullptr) impl_->moved_bytes->Increment(moves * impl_->expert_bytes);
  if (reaction_seconds) impl_->reaction_seconds.Observe(*reaction_seconds);
}

void Metrics::published_again() { impl_->publications_repeated.Increment(); }

void Metrics::state_write_failed() { impl_->state_write_errors.Increment(); }

void Metrics::reloaded(bool ok, double unix_seconds) {
  impl_->config_last_reload_successful.Set(ok ? 1 : 0);
  if (ok) impl_->config_last_reload_success_timestamp.Set(unix_seconds);
}

void Metrics::refresh(const Snapshot& now) {
  for (size_t mode = 0; mode < impl_->mode.size(); ++mode) {
    impl_->mode[mode]->Set(static_cast<Mode>(mode) == now.mode ? 1 : 0);
  }
  impl_->paused.Set(now.paused ? 1 : 0);
  impl_->leader.Set(now.leader ? 1 : 0);
  for (Gauge* const problem : impl_->problems) problem->Set(0);
  for (const Problem& problem : now.problems) {
    impl_->problems[static_cast<size_t>(problem.kind)]->Increment();
  }
  impl_->workers.Set(static_cast<double>(now.workers));
  impl_->workers_behind.Set(static_cast<double>(now.workers_behind));
  impl_->last_counts_timestamp.set(now.last_counts_unix_seconds);

  impl_->imbalance.set(unless_zero(now.imbalance));
  impl_->balancedness.set(now.imbalance > 0 ? std::optional(1 / now.imbalance) : std::nullopt);
  impl_->imbalance_initial.set(unless_zero(now.imbalance_initial));
  impl_->imbalance_measured.set(unless_zero(now.imbalance_measured));
  impl_->imbalance_floor.set(unless_zero(now.imbalance_floor));
  impl_->imbalance_would_be.set(unless_zero(now.imbalance_would_be));
  impl_->imbalance_threshold.Set(now.imbalance_threshold);
  impl_->gain_realised.set(now.gain_realised);
  for (size_t layer = 0; layer < impl_->layer_imbalance.size(); ++layer) {
    impl_->layer_imbalance[layer].set(layer < now.layer_imbalance.size()
                                          ? unless_zero(now.layer_imbalance[layer])
                                          : std::nullopt);
  }
  impl_->gpu_load_ratio.set(now.gpu_load_ratio);

  impl_->updates_left.set(now.updates_left);
  impl_->moves_left.set(now.moves_left);
  impl_->next_update_timestamp.set(unless_zero(now.next_update_unix_seconds));
  impl_->sources.set(now.sources);

  impl_->placement_version.Set(static_cast<double>(now.placement.version));
  impl_->placement_term.Set(static_cast<double>(now.placement.term));
  impl_->placement_timestamp.Set(now.placement_unix_seconds);
  impl_->gpus_down.Set(now.gpus_down);
  impl_->window_half_life.Set(now.window_half_life_seconds);
}

double Metrics::messages_rejected() const {
  double sum = 0;
  for (const Counter* counter : impl_->counts_rejected) sum += counter->Value();
  return sum;
}

std::optional<double> Metrics::mean_decide_seconds() const {
  const auto histogram = impl_->decide_seconds.Collect().histogram;
  if (histogram.sample_count == 0) return std::nullopt;
  return histogram.sample_sum / static_cast<double>(histogram.sample_count);
}

std::string Metrics::text() const {
  std::vector<MetricFamily> families = impl_->registry.Collect();
  std::vector<MetricFamily> process = impl_->process.Collect();
  std::move(process.begin(), process.end(), std::back_inserter(families));
  sort_series(families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace eplbd
