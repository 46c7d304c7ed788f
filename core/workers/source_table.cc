// SPDX-License-Identifier: Apache-2.0
#include "core/workers/source_table.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace eplbd {
namespace {

constexpr size_t kLongestName = 128;
constexpr double kLongestSpread = 10.0 * 365 * 86400;  // seconds: no overflow, no more effect

// Where a message stands in its source's stream.
struct Order {
  std::optional<RejectReason> rejected;
  bool duplicate = false;
  bool first = false;  // of this source, or of a new epoch
  bool restarted = false;
  uint64_t lost = 0;
};

// `mine` is the stream of the message's type, `other` the source's other one: publishers number
// both types by one sequence, but a source may also use one publisher for each.
Order order_of(const Stream& mine, const Stream& other, uint64_t epoch, uint64_t sequence,
               TimePoint now, Duration timeout) {
  Order order;
  if (mine.heard && epoch < mine.epoch && now - mine.at <= timeout) {
    order.rejected = RejectReason::source_conflict;
    return order;
  }
  const bool shared = other.heard && other.epoch == epoch;
  if (!mine.heard || epoch != mine.epoch) {
    order.first = true;
    order.restarted = (mine.heard || other.heard) && !shared;
    if (order.restarted) order.lost = sequence;
    if (shared && sequence > other.sequence) order.lost = sequence - other.sequence - 1;
    return order;
  }
  if (sequence <= mine.sequence) {
    order.duplicate = true;
    return order;
  }
  const uint64_t newest = shared ? std::max(mine.sequence, other.sequence) : mine.sequence;
  if (sequence > newest) order.lost = sequence - newest - 1;
  return order;
}

void accept(Stream& stream, uint64_t epoch, uint64_t sequence, double ts, TimePoint now) {
  stream = {true, epoch, sequence, ts, now};
}

// What a running counter grew by since `last` (modulo 2^32), which it becomes.
void advance_counter(const PackedArray<uint32_t>& counter, std::vector<uint32_t>& last,
                     std::span<uint32_t> grown) {
  for (size_t i = 0; i < grown.size(); ++i) {
    const uint32_t value = counter[i];
    grown[i] = value - last[i];
    last[i] = value;
  }
}

// One array of a report into `out`; false when it is only a baseline.
bool take_array(const PackedArray<uint32_t>& values, bool cumulative, bool first, bool whole,
                std::vector<uint32_t>& counter, std::span<uint32_t> out) {
  if (!cumulative) {
    counter.clear();
    values.copy_to(out);
    return whole;
  }
  if (first || counter.empty()) {
    const bool counts = first && whole;
    counter.resize(values.size());
    values.copy_to(counter);
    values.copy_to(out);
    return counts;
  }
  advance_counter(values, counter, out);
  return whole;
}

}  // namespace

SourceTable::SourceTable(const Topology& topology, SourceRules rules, Duration half_life)
    : layers_(topology.layers),
      gpus_(topology.gpus),
      cells_(static_cast<size_t>(topology.layers) * topology.logical_experts),
      gpu_cells_(static_cast<size_t>(topology.layers) * topology.gpus),
      rules_(std::move(rules)),
      half_life_(half_life),
      counts_(cells_),
      gpu_tokens_(gpu_cells_) {}

void SourceTable::set_rules(SourceRules rules, Duration half_life) {
  if (rules.engine != rules_.engine) engine_known_ = false;
  rules_ = std::move(rules);
  half_life_ = half_life;
}

// The engine that is not configured is the first heard, until it is silent.
bool SourceTable::foreign(std::string_view engine, TimePoint now) const {
  if (!rules_.engine.empty()) return engine != rules_.engine;
  return engine_known_ && engine != engine_ && now - engine_at_ <= rules_.timeout;
}

void SourceTable::follow(std::string_view engine, TimePoint now) {
  if (!engine_known_ || engine != engine_) engine_ = engine;
  engine_known_ = true;
  engine_at_ = now;
}

// Null when there are too many; a silent one makes room.
Source* SourceTable::find_or_add(std::string_view name, TimePoint now) {
  const auto found = sources_.find(name);
  if (found != sources_.end()) return &found->second;
  if (rules_.limit > 0 && sources_.size() >= static_cast<size_t>(rules_.limit)) {
    const auto silent = std::find_if(sources_.begin(), sources_.end(), [&](const auto& entry) {
      const Source& source = entry.second;
      return now - std::max(source.counts.at, source.state.at) > rules_.timeout;
    });
    if (silent == sources_.end()) return nullptr;
    sources_.erase(silent);
  }
  return &sources_.emplace(std::string(name), Source()).first->second;
}

std::optional<RejectReason> SourceTable::check_scope(const CountsReport& report,
                                                     TimePoint now) const {
  const bool global_live = global_heard_ && now - global_at_ <= rules_.timeout;
  const bool local_live = local_heard_ && now - local_at_ <= rules_.timeout;
  const bool conflict =
      report.global ? local_live || (global_live && report.source != global_source_) : global_live;
  if (conflict) return RejectReason::scope_conflict;
  return std::nullopt;
}

void SourceTable::note_scope(const CountsReport& report, TimePoint now) {
  if (!report.global) {
    local_heard_ = true;
    local_at_ = now;
    return;
  }
  if (!global_heard_ || report.source != global_source_) global_source_ = report.source;
  global_heard_ = true;
  global_at_ = now;
}

// The report's arrays into counts_ and gpu_tokens_; false when it is a baseline. `whole`: a first
// report's counter, or any report's difference, may count.
bool SourceTable::take(const CountsReport& report, bool whole, Source& source) {
  const bool first = !source.counts.heard || source.counts.epoch != report.epoch;
  const bool counts =
      take_array(report.counts, report.cumulative, first, whole, source.counter, counts_);
  if (report.gpu_tokens.empty()) {
    source.gpu_counter.clear();
  } else if (!take_array(report.gpu_tokens, report.cumulative, first, whole, source.gpu_counter,
                         gpu_tokens_)) {
    std::fill(gpu_tokens_.begin(), gpu_tokens_.end(), 0);
  }
  return counts;
}

// Every token passes every layer, so the rows of counts_ should have one sum.
void SourceTable::sum_rows(IngestResult& result) const {
  const size_t experts = cells_ / layers_;
  uint64_t first = 0;
  for (int32_t layer = 0; layer < layers_; ++layer) {
    const auto row = counts_.begin() + static_cast<ptrdiff_t>(layer * experts);
    const uint64_t sum = std::accumulate(row, row + static_cast<ptrdiff_t>(experts), uint64_t{0});
    if (layer == 0) first = sum;
    result.inconsistent |= sum != first;
    result.tokens += sum;
  }
}

IngestResult SourceTable::admit(const CountsReport& report, TimePoint now, Admitted& admitted) {
  admitted = {};
  IngestResult result;
  // A message that is dropped for its content has still arrived: the next one follows no gap.
  const auto reject = [&](RejectReason reason) {
    result.rejected = reason;
    if (const auto known = sources_.find(report.source); known != sources_.end()) {
      Source& source = known->second;
      const Order order =
          order_of(source.counts, source.state, report.epoch, report.sequence, now, rules_.timeout);
      const bool next = !order.rejected && !order.duplicate && !order.first && order.lost == 0;
      if (next) source.counts.sequence = report.sequence;
    }
    return result;
  };
  if (report.source.empty() || report.source.size() > kLongestName) {
    return reject(RejectReason::bad_value);
  }
  if (report.counts.size() != cells_ ||
      (!report.gpu_tokens.empty() && report.gpu_tokens.size() != gpu_cells_)) {
    return reject(RejectReason::wrong_shape);
  }
  if (!std::isfinite(report.ts) || !std::isfinite(report.since) || report.since > report.ts) {
    return reject(RejectReason::bad_timestamp);
  }
  if (foreign(report.engine, now)) return reject(RejectReason::wrong_engine);
  if (const auto conflict = check_scope(report, now)) return reject(*conflict);
  Source* const source = find_or_add(report.source, now);
  if (!source) return reject(RejectReason::too_many_sources);

  const Order order =
      order_of(source->counts, source->state, report.epoch, report.sequence, now, rules_.timeout);
  if (order.rejected) return reject(*order.rejected);
  result.duplicate = order.duplicate;
  if (order.duplicate) return result;
  if (!order.first && report.ts <= source->counts.ts) return reject(RejectReason::bad_timestamp);
  note_scope(report, now);
  follow(report.engine, now);
  result.restarted = order.restarted;
  result.lost = order.lost;

  const double covered = report.ts - (order.first ? report.since : source->counts.ts);
  const bool shared_start = source->from_start && source->state.epoch == report.epoch;
  const bool whole = (order.first && (report.sequence == 0 || (shared_start && order.lost == 0))) ||
                     covered <= to_seconds(kLongestInterval);
  result.baseline = !take(report, whole, *source);
  if (order.first) source->from_start = report.sequence == 0;
  accept(source->counts, report.epoch, report.sequence, report.ts, now);
  source->running = report.running;
  ++source->messages;
  source->lost += order.lost;
  if (result.baseline) return result;

  sum_rows(result);
  admitted.covered = from_seconds(std::min(covered, kLongestSpread));
  admitted.counts = counts_;
  if (!report.gpu_tokens.empty()) admitted.gpu_tokens = gpu_tokens_;
  source->steps.add(static_cast<double>(report.steps), admitted.covered, now, half_life_);
  tokens_.add(static_cast<double>(result.tokens), admitted.covered, now, half_life_);
  return result;
}

IngestResult SourceTable::admit(const StateReport& report, TimePoint now) {
  IngestResult result;
  const auto reject = [&](RejectReason reason) {
    result.rejected = reason;
    return result;
  };
  if (report.source.empty() || report.source.size() > kLongestName) {
    return reject(RejectReason::bad_value);
  }
  if (!std::isfinite(report.ts)) return reject(RejectReason::bad_timestamp);
  if (foreign(report.engine, now)) return reject(RejectReason::wrong_engine);
  Source* const source = find_or_add(report.source, now);
  if (!source) return reject(RejectReason::too_many_sources);
  const Order order =
      order_of(source->state, source->counts, report.epoch, report.sequence, now, rules_.timeout);
  if (order.rejected) return reject(*order.rejected);
  result.duplicate = order.duplicate;
  if (order.duplicate) return result;
  follow(report.engine, now);
  result.restarted = order.restarted;
  result.lost = order.lost;
  if (order.first) source->from_start = report.sequence == 0;
  accept(source->state, report.epoch, report.sequence, report.ts, now);
  source->lost += order.lost;
  return result;
}

bool SourceTable::live(const Source& source, TimePoint now) const {
  return source.counts.heard && now - source.counts.at <= rules_.timeout;
}

bool SourceTable::any_live(TimePoint now) const {
  return std::any_of(sources_.begin(), sources_.end(),
                     [&](const auto& entry) { return live(entry.second, now); });
}

std::optional<PlacementId> SourceTable::agreed_placement(TimePoint now) const {
  std::optional<PlacementId> agreed;
  for (const auto& [name, source] : sources_) {
    if (!live(source, now)) continue;
    if (agreed && *agreed != source.running) return std::nullopt;
    agreed = source.running;
  }
  return agreed;
}

double SourceTable::tokens_per_gpu_step(TimePoint now) const {
  double steps = 0;
  for (const auto& [name, source] : sources_) {
    steps = std::max(steps, source.steps.read(now, half_life_));
  }
  const double tokens_of_a_layer = tokens_.read(now, half_life_) / layers_;
  return steps > 0 ? tokens_of_a_layer / steps / gpus_ : tokens_of_a_layer / gpus_;
}

}  // namespace eplbd
