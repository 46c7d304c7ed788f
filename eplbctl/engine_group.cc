// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/engine_group.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <sstream>

#include "config/duration.h"
#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "eplbctl/errors.h"

namespace eplbd {
namespace {

const EngineOptions kEngines[] = {{"vllm", 3000, 1000, 0}, {"sglang", 1000, 1000, 0}};
constexpr std::string_view kPrefix = "engine:";
constexpr int64_t kMostSteps = 1'000'000'000;

int64_t parse_steps(const std::string& item, std::string_view value) {
  int64_t steps = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), steps);
  if (error != std::errc() || end != value.data() + value.size() || steps < 1 ||
      steps > kMostSteps) {
    throw UsageError(item + ": must be a number of steps from 1 to " + std::to_string(kMostSteps));
  }
  return steps;
}

void parse_part(const std::string& text, const std::string& part, EngineOptions& options) {
  const size_t equals = part.find('=');
  const std::string key = part.substr(0, equals);
  const std::string value = equals == part.npos ? "" : part.substr(equals + 1);
  Duration pass{};
  if (key == "interval") {
    options.interval = parse_steps(part, value);
  } else if (key == "window") {
    options.window = parse_steps(part, value);
  } else if (key != "pass") {
    throw UsageError(text + ": \"" + part + "\" is none of interval=N, window=N, pass=DURATION");
  } else if (const auto problem = parse_duration(value, pass); problem || pass <= Duration{}) {
    throw UsageError(part + ": must be a duration with its unit, as 50ms");
  } else {
    options.pass_seconds = to_seconds(pass);
  }
}

int64_t trace_steps(int64_t engine_steps, const EngineOptions& options, const VirtualTime& time) {
  const double seconds = options.pass_seconds > 0 ? options.pass_seconds : time.step_seconds;
  const double steps = static_cast<double>(engine_steps) * seconds / time.step_seconds;
  return std::max<int64_t>(1, std::llround(steps));
}

}  // namespace

std::optional<EngineOptions> parse_engine(const std::string& text) {
  if (!text.starts_with(kPrefix)) return {};
  if (text.ends_with(',')) throw UsageError(text + ": nothing follows its last comma");
  std::istringstream parts(text.substr(kPrefix.size()));
  std::string part;
  std::getline(parts, part, ',');
  const auto known = std::find_if(std::begin(kEngines), std::end(kEngines),
                                  [&](const EngineOptions& engine) { return engine.name == part; });
  if (known == std::end(kEngines)) {
    throw UsageError(text + ": the engines are vllm and sglang");
  }
  EngineOptions options = *known;
  while (std::getline(parts, part, ',')) parse_part(text, part, options);
  return options;
}

EngineGroup::EngineGroup(const Topology& topology, const EngineOptions& options,
                         const VirtualTime& time)
    : topology_(topology),
      policy_(make_scratch_policy({.policy = Policy::deepseek})),
      interval_steps_(trace_steps(options.interval, options, time)),
      first_steps_(options.name == "vllm" ? trace_steps(options.interval / 4, options, time)
                                          : interval_steps_),
      window_steps_(trace_steps(options.window, options, time)),
      apply_steps_(time.apply_seconds / time.step_seconds),
      sum_(static_cast<size_t>(topology.layers) * topology.logical_experts),
      serving_(Placement::initial(topology)) {}

VirtualGroup::Decided EngineGroup::rebuild() {
  VirtualGroup::Decided decided;
  const auto start = std::chrono::steady_clock::now();
  next_ = keep_slots(topology_, serving_, policy_->place(topology_, sum_, {}).placement);
  decided.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  Decision& decision = decided.decision;
  const MoveCount moves = count_moves(topology_, serving_, next_);
  decision.verdict = moves.total > 0 ? Verdict::update : Verdict::no_better;
  decision.moves = moves.total;
  decision.worst_gpu_moves = moves.worst_gpu;
  decision.update = PlacementUpdate{};
  decision.update->id = {running_.term, running_.version + 1};
  decision.update->placement = next_;
  decision.update->changed_layers = changed_layers(serving_, next_);
  decision.update->moves = moves_between(topology_, serving_, next_);
  return decided;
}

VirtualGroup::Step EngineGroup::step(std::span<const uint32_t> counts) {
  VirtualGroup::Step step;
  const auto begin = static_cast<double>(steps_);
  const auto apply = [&] {
    serving_ = next_;
    ++running_.version;
    serves_from_.reset();
  };
  if (serves_from_ && *serves_from_ <= begin) apply();
  if (serves_from_ && *serves_from_ < begin + 1) {
    const double part = *serves_from_ - begin;
    step.served.push_back({serving_, part});
    apply();
    step.served.push_back({serving_, 1 - part});
  } else {
    step.served.push_back({serving_, 1});
  }
  ++steps_;
  window_.emplace_back(counts.begin(), counts.end());
  for (size_t i = 0; i < counts.size(); ++i) sum_[i] += counts[i];
  if (static_cast<int64_t>(window_.size()) > window_steps_) {
    for (size_t i = 0; i < counts.size(); ++i) sum_[i] -= window_.front()[i];
    window_.pop_front();
  }
  const int64_t since_first = steps_ - first_steps_;
  if (since_first < 0 || since_first % interval_steps_ != 0 || serves_from_) return step;
  step.decided.push_back(rebuild());
  if (step.decided.back().decision.verdict == Verdict::update) {
    serves_from_ = static_cast<double>(steps_) + apply_steps_;
  }
  return step;
}

}  // namespace eplbd
