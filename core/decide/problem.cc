// SPDX-License-Identifier: Apache-2.0
#include "core/decide/problem.h"

#include <algorithm>
#include <iterator>

#include "core/decide/number.h"
#include "core/decide/situation.h"

namespace eplbd {
namespace {

constexpr double kPaceTolerance = 10;  // times; late messages make a clock look slow for a while

std::string list(const std::vector<int32_t>& gpus) {
  std::string text;
  for (const int32_t gpu : gpus) text += (text.empty() ? "" : ", ") + std::to_string(gpu);
  return text;
}

// Workers that all are gone are no fault of theirs; ones that report but do not count are.
bool lacks_counts(const Situation& situation, TimePoint now) {
  const Duration timeout = situation.options.workers.timeout;
  const auto reported = situation.group.reported_at();
  return reported && now - *reported < timeout && now - situation.started > timeout &&
         !situation.sources.any_live(now);
}

}  // namespace

std::vector<Problem> problems_of(const Situation& situation, TimePoint now) {
  const GroupState& group = situation.group;
  std::vector<Problem> problems;
  const auto add = [&](ProblemKind kind, std::string text) {
    problems.push_back({kind, std::move(text)});
  };
  if (group.topology_mismatch()) add(ProblemKind::topology_mismatch, group.mismatch());
  if (group.failed() || group.overdue()) {
    add(ProblemKind::not_applied,
        "placement " + to_text(group.published().id) + " was not applied: " + group.failure());
  }
  if (group.broken()) add(ProblemKind::broken_map, *group.broken());
  std::vector<int32_t> empty;
  std::ranges::set_difference(group.empty_gpus(), situation.state.gpus_down,
                              std::back_inserter(empty));
  if (!empty.empty()) {
    add(ProblemKind::empty_gpu, "workers report no weights on GPU " + list(empty) +
                                    ": it gets none until it is restored, or they report some");
  }
  const std::vector<int32_t>& down = situation.state.gpus_down;
  const bool heard = group.reported_at() || situation.sources.any_live(now);
  if (heard && !down.empty() && !group.may_empty_gpus()) {
    add(ProblemKind::not_drained, "GPU " + list(down) +
                                      " is to hold nothing, but workers do not say that they can "
                                      "run so: no \"inactive_gpus\" among their features");
  }
  if (group.nameless()) {
    add(ProblemKind::nameless_placement, "workers run another placement under the name " +
                                             to_text(group.running()) +
                                             " than is known by it, or one that nobody reports");
  }
  if (lacks_counts(situation, now)) {
    add(ProblemKind::no_counts, "workers report their state, but nobody sent counts for " +
                                    number(to_seconds(situation.options.workers.timeout)) + " s");
  }
  for (const auto& [name, source] : situation.sources.sources()) {
    const double pace = source.counts.pace();
    const bool off = pace > kPaceTolerance || (pace > 0 && pace < 1 / kPaceTolerance);
    if (!off || !situation.sources.live(source, now)) continue;
    add(ProblemKind::worker_clock, name + " counts " + number(pace) +
                                       " seconds of its ts in one of ours: it is to be in seconds");
  }
  return problems;
}

}  // namespace eplbd
