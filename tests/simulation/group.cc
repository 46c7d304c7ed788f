// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/group.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>

#include "tests/simulation/world.h"

namespace eplbd::simulation {
namespace {

constexpr double kBegan = 1'700'000'000.0;  // of the workers' clocks
constexpr double kCountInterval = 0.5;      // seconds
constexpr double kReportInterval = 5;
constexpr double kTokensPerSecond = 4000;  // of a layer and a source
constexpr double kStepsPerSecond = 20;

// Tokens a second of each expert: a few are hot.
double rate_of(const Topology& topology, size_t expert, uint64_t shift) {
  const auto experts = static_cast<size_t>(topology.logical_experts);
  double sum = 0;
  for (size_t rank = 0; rank < experts; ++rank) sum += 1.0 / static_cast<double>(rank + 1);
  const size_t rank = (expert + shift) % experts;
  return kTokensPerSecond / static_cast<double>(rank + 1) / sum;
}

template <typename T>
PackedArray<T> packed(const std::vector<T>& values) {
  return PackedArray<T>(std::as_bytes(std::span(values)));
}

}  // namespace

Group::Group(World& world, const Scenario& scenario)
    : world_(world), scenario_(scenario), map_(Placement::initial(scenario.topology).map()) {
  Random random(scenario.seed);
  for (int32_t i = 0; i < scenario.sources; ++i) {
    Source source;
    source.name = "dp" + std::to_string(i);
    source.clock_ahead = static_cast<double>(random.below(1000)) - 500;
    source.since = kBegan + source.clock_ahead;
    source.counted_at = 0;
    source.cumulative = random.chance(0.6);
    source.counter.resize(static_cast<size_t>(scenario.topology.layers) *
                          scenario.topology.logical_experts);
    sources_.push_back(std::move(source));
  }
}

void Group::begin() {
  for (int32_t i = 0; i < scenario_.sources; ++i) {
    world_.schedule().after(from_seconds(0.1 + 0.07 * i), [this, i] { count_and_again(i); });
  }
  report_and_again();
}

double Group::now(const Source& source) const {
  return kBegan + source.clock_ahead + world_.schedule().seconds();
}

double Group::tokens_per_second() const {
  return kTokensPerSecond * scenario_.topology.layers * scenario_.sources;
}

// ---- Counts ----

void Group::count_and_again(int32_t index) {
  Source& source = sources_[index];
  count(source);
  send_counts(source, counts_report(source));
  world_.schedule().after(from_seconds(kCountInterval), [this, index] { count_and_again(index); });
}

// What was routed since it last counted. Every layer sees every token.
void Group::count(Source& source) {
  const double seconds = world_.schedule().seconds() - source.counted_at;
  source.counted_at += seconds;
  if (!source.cumulative) std::ranges::fill(source.counter, 0);
  const auto experts = static_cast<size_t>(scenario_.topology.logical_experts);
  double tokens = 0;
  for (size_t cell = 0; cell < source.counter.size(); ++cell) {
    const double rate = rate_of(scenario_.topology, cell % experts, shift_);
    const auto routed = static_cast<uint32_t>(rate * seconds);
    source.counter[cell] += routed;
    tokens += routed;
  }
  world_.judge().counted(tokens);
}

CountsReport Group::counts_report(Source& source) const {
  CountsReport report;
  report.source = source.name;
  report.sequence = source.sequence++;
  report.epoch = source.epoch;
  report.since = source.since;
  report.ts = now(source);
  report.steps = static_cast<uint64_t>(kStepsPerSecond * kCountInterval);
  report.running = running_;
  report.cumulative = source.cumulative;
  return report;
}

void Group::send_counts(Source& source, CountsReport report) {
  const auto counts = std::make_shared<std::vector<uint32_t>>(source.counter);
  const auto name = std::make_shared<std::string>(source.name);
  world_.send([report, counts, name](Deployment& deployment) mutable {
    report.source = *name;
    report.counts = packed(*counts);
    deployment.take(report, counts->size() * sizeof(uint32_t), "worker");
  });
}

void Group::send_odd_number(int32_t index, uint64_t edge, int field) {
  Source& source = sources_[index];
  count(source);
  CountsReport report = counts_report(source);
  switch (field) {
    case 0:
      report.sequence = edge;
      break;
    case 1:
      report.steps = edge;
      break;
    case 2:
      report.running = {edge, edge};
      break;
    case 3:
      report.ts = edge % 2 == 0 ? static_cast<double>(edge) : std::numeric_limits<double>::max();
      break;
    default:
      report.since = -static_cast<double>(edge);
  }
  send_counts(source, report);
}

void Group::send_strangers(uint64_t sources) {
  for (uint64_t i = 0; i < sources; ++i) {
    Source stranger = sources_.front();
    stranger.name = "stranger" + std::to_string(epochs_++);
    stranger.sequence = 0;
    std::ranges::fill(stranger.counter, 0);
    send_counts(stranger, counts_report(stranger));
  }
}

void Group::restart_source(int32_t index) {
  Source& source = sources_[index];
  source.epoch = ++epochs_;
  source.sequence = 0;
  source.since = now(source);
  source.counted_at = world_.schedule().seconds();
  std::ranges::fill(source.counter, 0);
}

void Group::reset_counters(int32_t index) { std::ranges::fill(sources_[index].counter, 0); }

void Group::move_clock(int32_t index, double seconds) { sources_[index].clock_ahead += seconds; }

// ---- State ----

void Group::restart() {
  for (int32_t i = 0; i < scenario_.sources; ++i) restart_source(i);
  held_ = running_ = {};
  map_ = Placement::initial(scenario_.topology).map();
  applying_.reset();
  ++applications_;
  world_.subscribe();
  report(WorkerStatus::idle);
}

void Group::report_and_again() {
  report(applying_ ? WorkerStatus::applying : WorkerStatus::idle);
  world_.schedule().after(from_seconds(kReportInterval), [this] { report_and_again(); });
}

std::vector<int32_t> Group::seen_map() const {
  std::vector<int32_t> map = map_;
  if (applying_) {
    const auto done = static_cast<ptrdiff_t>(applying_->layers_done) * scenario_.topology.slots;
    std::copy_n(applying_->update.placement.map().begin(), done, map.begin());
  }
  if (world_.lasts(Fault::broken)) {
    const auto lost = static_cast<int32_t>(world_.latest(Fault::broken).number);
    std::ranges::replace(map, lost, lost + 1);
  }
  if (world_.lasts(Fault::empty_gpu)) {
    const Topology& topology = scenario_.topology;
    for (size_t cell = 0; cell < map.size(); ++cell) {
      const auto slot = static_cast<int32_t>(cell % topology.slots);
      if (topology.gpu_of(slot) == world_.latest(Fault::empty_gpu).who) map[cell] = kNoExpert;
    }
  }
  return map;
}

void Group::report(WorkerStatus status) {
  reported_at_ = world_.schedule().seconds();
  if (world_.lasts(Fault::other_shape)) {
    report_map(0, running_, std::vector<int32_t>(map_.size() * 2), status);
  } else {
    report_map(0, running_, seen_map(), status);
  }
}

void Group::report_map(int32_t index, PlacementId id, std::vector<int32_t> map,
                       WorkerStatus status) {
  if (!scenario_.reports || world_.lasts(Fault::silent_reporter)) return;
  const Topology& topology = scenario_.topology;
  Source& source = sources_[index % sources_.size()];
  StateReport report;
  report.sequence = source.sequence++;
  report.epoch = source.epoch;
  report.ts = now(source);
  report.running = id;
  report.status = status;
  report.layers = topology.layers;
  report.logical_experts = topology.logical_experts;
  report.slots = static_cast<int64_t>(map.size()) / topology.layers;
  report.gpus = topology.gpus * report.slots / topology.slots;
  report.inactive_gpus = scenario_.inactive_gpus;
  if (report.inactive_gpus || world_.lasts(Fault::empty_gpu)) world_.judge().may_empty_gpus();
  const auto sent = std::make_shared<std::vector<int32_t>>(std::move(map));
  const auto name = std::make_shared<std::string>(source.name);
  world_.send([report, sent, name](Deployment& deployment) mutable {
    report.source = *name;
    report.physical_to_logical = packed(*sent);
    deployment.take(report, "worker");
  });
}

void Group::report_odd_name(PlacementId id, bool two_maps) {
  report_map(0, id, seen_map(), WorkerStatus::idle);
  if (!two_maps) return;
  std::vector<int32_t> other = map_;
  std::ranges::reverse(other);
  report_map(0, id, std::move(other), WorkerStatus::idle);
}

void Group::report_rising_names() {
  if (!world_.lasts(Fault::odd_term)) return;
  const Event& event = world_.latest(Fault::odd_term);
  const double term = world_.clock().unix_seconds + event.amount;
  report_odd_name({static_cast<uint64_t>(term), 1 + event.number}, event.number % 2 == 0);
  world_.schedule().after(std::chrono::seconds(1), [this] { report_rising_names(); });
}

void Group::flap() {
  if (!world_.lasts(Fault::flapping)) return;
  const uint64_t number = world_.latest(Fault::flapping).number;
  std::vector<int32_t> other = map_;
  std::rotate(other.begin(), other.begin() + 1, other.end());  // clang 14 lacks that of ranges
  report_map(1, number % 2 == 0 ? running_ : PlacementId{}, std::move(other), WorkerStatus::idle);
  report(WorkerStatus::idle);
  world_.schedule().after(std::chrono::milliseconds(20), [this] { flap(); });
}

// ---- Placements ----

void Group::receive(const PlacementUpdate& update) {
  if (update.id > held_) take(update);
}

void Group::receive_heartbeat(PlacementId id) {
  if (id > held_) world_.subscribe();
  if (id != running_ && world_.schedule().seconds() - reported_at_ >= 1) {
    report(applying_ ? WorkerStatus::applying : WorkerStatus::idle);
  }
}

// One that is being applied is left where it is: the rows of three maps lie side by side.
void Group::take(const PlacementUpdate& update) {
  if (applying_) map_ = seen_map();
  held_ = update.id;
  applying_ = {update, 0};
  apply_layer(++applications_);
}

void Group::apply_layer(uint64_t number) {
  if (number != applications_ || !applying_) return;
  const bool slow = world_.lasts(Fault::slow_apply);
  const double seconds = slow ? world_.latest(Fault::slow_apply).amount : 0.3;
  if (applying_->layers_done == scenario_.topology.layers) {
    running_ = applying_->update.id;
    map_ = applying_->update.placement.map();
    applying_.reset();
    return report(WorkerStatus::applied);
  }
  if (world_.lasts(Fault::failing_apply)) {
    applying_.reset();
    held_ = running_;  // it may come once more
    return report(WorkerStatus::failed);
  }
  ++applying_->layers_done;
  report(WorkerStatus::applying);
  world_.schedule().after(from_seconds(seconds / scenario_.topology.layers),
                          [this, number] { apply_layer(number); });
}

}  // namespace eplbd::simulation
