// SPDX-License-Identifier: Apache-2.0
#include "core/workers/source_table.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/model/utf8.h"

namespace eplbd {
namespace {

// A source that is silent for so many of its intervals is waited for no longer, nor is one that
// reports less often than this.
constexpr double kLate = 1.25;
constexpr Duration kLongestWait = std::chrono::seconds(10);
constexpr double kLongestSpread = 10.0 * 365 * 86400;  // seconds: no overflow, no more effect

// No forward pass takes less than 10 ms for long where nothing is known of a source yet.
constexpr double kUsualStepsPerSecond = 100;
constexpr double kFaster = 4;                         // than usual: what one message may say
constexpr uint32_t kResetGrowth = uint32_t{1} << 31;  // of a cell: it started over
constexpr Duration kForgetInterval = std::chrono::seconds(1);

}  // namespace

SourceTable::SourceTable(const Topology& topology, SourceRules rules, Duration half_life)
    : layers_(topology.layers),
      cells_(static_cast<size_t>(topology.layers) * topology.logical_experts),
      gpus_(topology.gpus),
      gpu_cells_(static_cast<size_t>(topology.layers) * topology.gpus),
      rules_(std::move(rules)),
      half_life_(half_life),
      followed_(rules_.engine, rules_.timeout),
      arrivals_(topology.layers, topology.logical_experts),
      gpu_arrivals_(topology.layers, topology.gpus) {}

void SourceTable::resize(int32_t gpus) {
  gpus_ = gpus;
  gpu_cells_ = static_cast<size_t>(layers_) * gpus;
  gpu_arrivals_ = Arrivals(layers_, gpus);
  for (auto& [name, source] : sources_) source.gpu_counter.clear();
}

void SourceTable::set_rules(SourceRules rules, Duration half_life) {
  followed_.set_rules(rules.engine, rules.timeout);
  rules_ = std::move(rules);
  half_life_ = half_life;
}

// Null when there are too many; a silent one makes room.
Source* SourceTable::find_or_add(std::string_view name, TimePoint now) {
  const auto found = sources_.find(name);
  if (found != sources_.end()) return &found->second;
  if (rules_.limit > 0 && sources_.size() >= static_cast<size_t>(rules_.limit)) {
    const auto silent = std::find_if(sources_.begin(), sources_.end(), [&](const auto& entry) {
      const Source& source = entry.second;
      return now - std::max(source.counts.at(), source.state.at()) > rules_.timeout;
    });
    if (silent == sources_.end()) return nullptr;
    sources_.erase(silent);
  }
  return &sources_.emplace(std::string(name), Source()).first->second;
}

// `whole`: a first report's counter, or any report's difference, may count.
SourceTable::Taken SourceTable::take(const PackedArray<uint32_t>& values, bool cumulative,
                                     bool first, bool whole, RunningCounter& counter,
                                     Arrivals& arrivals) {
  const bool known = !first && !counter.empty();  // there is one to take the difference from
  if (!cumulative) {
    counter.clear();
  } else if (!known) {
    counter.assign(values.size(), 0);
  }
  arrivals.take(values.bytes(), counter);
  Taken taken = whole && (known || first || !cumulative) ? Taken::counts : Taken::baseline;
  if (cumulative && known && arrivals.most() >= kResetGrowth) taken = Taken::reset;
  if (taken != Taken::counts) arrivals.take_back();
  return taken;
}

// A group makes its steps at a pace: one message that tells of far more of them would make every
// step seem to carry nothing.
void SourceTable::add_steps(uint64_t steps, Duration covered, TimePoint now, Source& source) const {
  const double seconds = to_seconds(covered);
  const double known = source.seconds.read(now, half_life_);
  const double usual = known > 0 ? source.steps.read(now, half_life_) / known : 0;
  const double most = seconds * std::max(kUsualStepsPerSecond, kFaster * usual);
  source.steps.add(std::min(static_cast<double>(steps), most), covered, now, half_life_);
  source.seconds.add(seconds, covered, now, half_life_);
}

// Every token passes every layer, so all layers should have one sum.
void SourceTable::sum_layers(IngestResult& result) const {
  for (const uint64_t tokens : arrivals_.layer_tokens()) {
    result.inconsistent |= tokens != arrivals_.layer_tokens().front();
    result.tokens += tokens;
  }
}

std::optional<RejectReason> SourceTable::check(const CountsReport& report, TimePoint now) const {
  if (report.source.empty() || report.source.size() > kMaxNameBytes) return RejectReason::bad_value;
  if (report.counts.size() != cells_ ||
      (!report.gpu_tokens.empty() && report.gpu_tokens.size() != gpu_cells_)) {
    return RejectReason::wrong_shape;
  }
  if (!is_clock_reading(report.ts) || !is_clock_reading(report.since)) {
    return RejectReason::bad_timestamp;
  }
  if (followed_.foreign(report.engine, now)) return RejectReason::wrong_engine;
  return followed_.check_scope(report, now);
}

IngestResult SourceTable::admit(const CountsReport& report, TimePoint now) {
  IngestResult result;
  result.rejected = check(report, now);
  if (result.rejected) {
    if (const auto known = sources_.find(report.source); known != sources_.end()) {
      Source& source = known->second;
      source.counts.note_dropped(source.counts.place(source.state, report.epoch, report.sequence,
                                                     std::nullopt, now, rules_.timeout),
                                 report.sequence);
    }
    return result;
  }
  Source* const source = find_or_add(report.source, now);
  if (!source) {
    result.rejected = RejectReason::too_many_sources;
    return result;
  }
  Standing standing = source->counts.place(source->state, report.epoch, report.sequence, report.ts,
                                           now, rules_.timeout);
  standing.baseline |= standing.first && report.since > report.ts;  // its clock was set back
  result.rejected = standing.rejected;
  result.duplicate = standing.duplicate;
  if (standing.rejected || standing.duplicate) {
    source->counts.note_dropped(standing, report.sequence);
    return result;
  }
  followed_.note_scope(report, now);
  followed_.note_engine(report.engine, now);
  result.restarted = standing.restarted;
  result.lost = standing.lost;

  const double covered = report.ts - (standing.first ? report.since : source->counts.ts());
  const bool shared_start = source->from_start && source->state.epoch() == report.epoch;
  const bool from_start = report.sequence == 0 || (shared_start && standing.lost == 0);
  const bool whole = !standing.baseline &&
                     ((standing.first && from_start) || covered <= to_seconds(kLongestInterval));
  const auto take_in = [&](const auto& values, RunningCounter& counter, Arrivals& arrivals) {
    return take(values, report.cumulative, standing.first, whole, counter, arrivals);
  };
  const Taken counts = take_in(report.counts, source->counter, arrivals_);
  Taken gpu_tokens = Taken::baseline;
  if (report.gpu_tokens.empty()) {
    source->gpu_counter.clear();
  } else {
    gpu_tokens = take_in(report.gpu_tokens, source->gpu_counter, gpu_arrivals_);
  }
  result.reset = counts == Taken::reset || gpu_tokens == Taken::reset;
  result.baseline = counts != Taken::counts;
  if (result.baseline && gpu_tokens == Taken::counts) gpu_arrivals_.take_back();
  if (standing.first) source->from_start = report.sequence == 0;
  source->counts.accept(standing, report.epoch, report.sequence, report.ts, now);
  source->running = report.running;
  ++source->messages;
  source->lost += standing.lost;
  if (result.baseline) return result;

  sum_layers(result);
  result.covered = from_seconds(std::min(covered, kLongestSpread));
  result.counts = arrivals_.counts();
  result.apart = !arrivals_.keep(result.covered);
  source->interval = result.covered;
  if (gpu_tokens == Taken::counts) result.gpu_tokens = gpu_arrivals_.counts();
  add_steps(report.steps, result.covered, now, *source);
  tokens_.add(static_cast<double>(result.tokens), result.covered, now, half_life_);
  return result;
}

IngestResult SourceTable::admit(const StateReport& report, TimePoint now) {
  IngestResult result;
  const auto reject = [&](RejectReason reason) {
    result.rejected = reason;
    return result;
  };
  if (report.source.empty() || report.source.size() > kMaxNameBytes) {
    return reject(RejectReason::bad_value);
  }
  if (!std::isfinite(report.ts)) return reject(RejectReason::bad_timestamp);
  if (followed_.foreign(report.engine, now)) return reject(RejectReason::wrong_engine);
  Source* const source = find_or_add(report.source, now);
  if (!source) return reject(RejectReason::too_many_sources);
  const Standing standing = source->state.place(source->counts, report.epoch, report.sequence,
                                                std::nullopt, now, rules_.timeout);
  if (standing.rejected) return reject(*standing.rejected);
  result.duplicate = standing.duplicate;
  if (standing.duplicate) return result;
  followed_.note_engine(report.engine, now);
  result.restarted = standing.restarted;
  result.lost = standing.lost;
  if (standing.first) source->from_start = report.sequence == 0;
  source->state.accept(standing, report.epoch, report.sequence, report.ts, now);
  source->lost += standing.lost;
  return result;
}

// A running counter that is older than any interval that counts is of no more use.
void SourceTable::forget_silent(TimePoint now) {
  if (now - forgot_at_ < kForgetInterval) return;
  forgot_at_ = now;
  const Duration longest = std::max(kLongestInterval, rules_.timeout);
  std::erase_if(sources_, [&](const auto& entry) {
    return now - std::max(entry.second.counts.at(), entry.second.state.at()) > longest;
  });
}

bool SourceTable::live(const Source& source, TimePoint now) const {
  return source.counts.heard() && now - source.counts.at() <= rules_.timeout;
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

std::vector<std::string_view> SourceTable::awaited(TimePoint since, TimePoint now) const {
  std::vector<std::string_view> names;
  for (const auto& [name, source] : sources_) {
    const bool told = source.counts.at() >= since;
    if (!live(source, now) || told || source.interval > kLongestWait) continue;
    const double silent = to_seconds(now - source.counts.at());
    if (silent <= kLate * to_seconds(source.interval)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
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
