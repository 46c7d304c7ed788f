// What is wrong, as far as reports tell: see core/decide/problem.h.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "core/decide/number.h"
#include "core/decide/rebalancer.h"

namespace eplbd {
namespace {

constexpr double kPaceTolerance = 10;  // times; late messages make a clock look slow for a while

std::string list(const std::vector<int32_t>& gpus) {
  std::string text;
  for (const int32_t gpu : gpus) text += (text.empty() ? "" : ", ") + std::to_string(gpu);
  return text;
}

}  // namespace

std::vector<Problem> Rebalancer::problems(Now now) const {
  std::vector<Problem> problems;
  const auto add = [&](ProblemKind kind, std::string text) {
    problems.push_back({kind, std::move(text)});
  };
  if (group_.topology_mismatch()) add(ProblemKind::topology_mismatch, group_.mismatch());
  if (group_.failed() || group_.overdue()) {
    add(ProblemKind::not_applied,
        "placement " + to_text(group_.published().id) + " was not applied: " + group_.failure());
  }
  if (group_.broken()) add(ProblemKind::broken_map, *group_.broken());
  std::vector<int32_t> empty;
  std::ranges::set_difference(group_.empty_gpus(), state_.gpus_down, std::back_inserter(empty));
  if (!empty.empty()) {
    add(ProblemKind::empty_gpu, "workers report no weights on GPU " + list(empty) +
                                    ": it gets none until it is restored, or they report some");
  }
  if (group_.nameless()) {
    add(ProblemKind::nameless_placement, "workers run another placement under the name " +
                                             to_text(group_.running()) +
                                             " than is known by it, or one that nobody reports");
  }
  if (lacks_counts(now)) {
    add(ProblemKind::no_counts, "workers report their state, but nobody sent counts for " +
                                    number(to_seconds(options_.workers.timeout)) + " s");
  }
  for (const auto& [name, source] : sources_.sources()) {
    const double pace = source.counts.pace();
    const bool off = pace > kPaceTolerance || (pace > 0 && pace < 1 / kPaceTolerance);
    if (!off || !sources_.live(source, now.steady)) continue;
    add(ProblemKind::worker_clock, name + " counts " + number(pace) +
                                       " seconds of its ts in one of ours: it is to be in seconds");
  }
  return problems;
}

// Workers that all are gone are no fault of theirs; ones that report but do not count are.
bool Rebalancer::lacks_counts(Now now) const {
  const Duration timeout = options_.workers.timeout;
  const auto reported = group_.reported_at();
  return reported && now.steady - *reported < timeout && now.steady - started_ > timeout &&
         !sources_.any_live(now.steady);
}

}  // namespace eplbd
