// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/replay_rows.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <utility>

#include "config/duration.h"
#include "config/nearest.h"
#include "eplbctl/errors.h"
#include "eplbctl/progress.h"
#include "eplbctl/text.h"

namespace eplbd {
namespace {

constexpr Policy kPolicies[] = {Policy::deepseek, Policy::evolved, Policy::joint,
                                Policy::incremental};
constexpr double kUsualPassSeconds = 0.05;  // a decode step of a large model

// What it saved and by how much; the words that both rows of a sentence share are said once.
std::string what_it_took(const ReplayRow& row, const ReplayOptions& options, bool first) {
  const ReplayScore& score = row.score;
  if (score.updates == 0) return "would have moved nothing";
  const double saved = saved_part(score);
  std::string text = format("{:.1f} %", std::abs(saved) * 100);
  if (first) {
    text = (saved >= 0 ? "would have saved " : "would have cost another ") + text +
           " of the slowest GPU's expert time";
  } else if (saved < 0) {
    text = "minus " + text;
  }
  text += format(" with {} moves in {} update{}, at most {} into a GPU in an hour",
                 grouped(score.moves), grouped(score.updates), score.updates == 1 ? "" : "s",
                 grouped(score.most_moves_in_an_hour));
  if (options.price.bandwidth > 0) {
    text += format(" (fetching takes {:.3g} s of {:.4g} s: {:.1f} % net)",
                   transfer_seconds(score, options.price),
                   static_cast<double>(score.steps) * options.time.step_seconds,
                   net_part(score, options) * 100);
  }
  return text;
}

std::string ways_name(const ReplayRow& row) {
  if (const EngineOptions* engine = row.engine()) {
    const auto of = [&] {
      if (engine->pass_seconds <= 0) return std::string("steps");
      return "passes of " + duration_text(from_seconds(engine->pass_seconds));
    };
    return format("rebuilding every {} {} as {} does", grouped(engine->interval), of(),
                  engine->name == "vllm" ? "vLLM" : "SGLang");
  }
  const Policy policy = std::get<RebalancerOptions>(row.way).balancer.policy;
  return policy == Policy::incremental ? "eplbd" : format("eplbd with {}", to_string(policy));
}

}  // namespace

RebalancerOptions rules_of(const ReplayOptions& options, const Config& config) {
  RebalancerOptions rules = config.rebalancer;
  rules.mode = Mode::active;  // what it would do is the question
  if (options.policy) rules.balancer.policy = *options.policy;
  if (options.hierarchical) rules.balancer.hierarchical = *options.hierarchical;
  if (options.seed) rules.balancer.seed = *options.seed;
  return rules;
}

ReplayRow row_of(const std::string& item, const ReplayOptions& options, const Config& config) {
  if (const auto engine = parse_engine(item)) return {item, *engine};
  if (const auto policy = from_name<Policy>(item)) {
    RebalancerOptions rules = rules_of(options, config);
    rules.balancer.policy = *policy;
    return {item, std::move(rules)};
  }
  constexpr std::array kSuffixes = {".yaml", ".yml", ".json"};
  const std::string suffix = std::filesystem::path(item).extension().string();
  if (std::find(kSuffixes.begin(), kSuffixes.end(), suffix) != kSuffixes.end()) {
    return {item, rules_of(options, read_config(item, Require::rules_only))};
  }
  constexpr auto kNames = names(Policy{});
  const std::vector<std::string> policies(kNames.begin(), kNames.end());
  const auto meant = nearest(item, policies);
  throw UsageError("\"" + item + "\" is no policy, no engine:NAME and no configuration (.yaml)" +
                   (meant ? "; did you mean " + *meant + "?" : ""));
}

EngineOptions usual_engine() {
  EngineOptions engine = *parse_engine("engine:vllm");
  engine.pass_seconds = kUsualPassSeconds;
  return engine;
}

std::vector<ReplayRow> rows_to_compare(const ReplayOptions& options, const Config& config) {
  std::vector<ReplayRow> rows;
  for (const std::string& item : options.compared) rows.push_back(row_of(item, options, config));
  if (!rows.empty()) return rows;
  for (const Policy policy : kPolicies) {
    rows.push_back(row_of(std::string(to_string(policy)), options, config));
  }
  rows.push_back({"engine:vllm,pass=50ms", usual_engine()});
  return rows;
}

void run_row(const TraceFile& trace, const Topology& topology, const VirtualTime& time,
             ReplayRow& row) {
  Progress progress(row.name, trace.steps());
  row.timeline.clear();
  row.timeline.reserve(static_cast<size_t>(trace.steps()));
  const auto each_step = [&](const ReplayStep& step) {
    row.timeline.push_back(step);
    progress.done(step.step);
  };
  row.score = std::visit(
      [&](const auto& way) { return replay(trace, topology, way, time, each_step); }, row.way);
}

double transfer_seconds(const ReplayScore& score, const TransferPrice& price) {
  if (price.bandwidth <= 0) return 0;
  return static_cast<double>(score.worst_gpu_moves) * price.expert_bytes / price.bandwidth;
}

double net_part(const ReplayScore& score, const ReplayOptions& options) {
  const double seconds = static_cast<double>(score.steps) * options.time.step_seconds;
  return saved_part(score) - transfer_seconds(score, options.price) / seconds;
}

std::string summary_of(const ReplayRow& row, const ReplayOptions& options) {
  return ways_name(row) + " " + what_it_took(row, options, true) + ".";
}

std::string summary_of(const std::vector<ReplayRow>& rows, const ReplayOptions& options) {
  const ReplayRow* ours = nullptr;
  const ReplayRow* engine = nullptr;
  const auto incremental = [](const ReplayRow& row) {
    const auto* rules = std::get_if<RebalancerOptions>(&row.way);
    return rules && rules->balancer.policy == Policy::incremental;
  };
  for (const ReplayRow& row : rows) {
    if (row.engine()) {
      engine = engine ? engine : &row;
    } else if (!ours || (incremental(row) && !incremental(*ours))) {
      ours = &row;
    }
  }
  std::string text = ours ? ways_name(*ours) + " " + what_it_took(*ours, options, true) : "";
  if (engine) {
    text += (ours ? "; " : "") + ways_name(*engine) + (ours ? ": " : " ") +
            what_it_took(*engine, options, !ours || ours->score.updates == 0);
  }
  return text + ".";
}

}  // namespace eplbd
