// SPDX-License-Identifier: Apache-2.0
#include "daemon/journal.h"

#include <fmt/format.h>

#include <utility>

namespace eplbd {
namespace {

constexpr size_t kDecisions = 50;
constexpr size_t kUpdates = 20;
constexpr size_t kSamples = 3600;  // one a second
constexpr size_t kEvents = 1000;

// In the journal an update is told, not carried out: its map is not needed.
PlacementUpdate without_map(PlacementUpdate update) {
  update.placement = Placement();
  return update;
}

void add_newest(std::deque<PlacementUpdate>& list, const PlacementUpdate& update) {
  list.push_front(without_map(update));
  if (list.size() > kUpdates) list.pop_back();
}

template <typename T>
void add_back(std::deque<T>& list, T value, size_t most) {
  list.push_back(std::move(value));
  if (list.size() > most) list.pop_front();
}

std::string text_of(const PlacementUpdate& update) {
  std::string text = fmt::format("{}, {} moves", to_string(update.reason), update.moves.size());
  if (update.imbalance_before > 0) {
    text += fmt::format(", imbalance {:.3f} -> {:.3f}", update.imbalance_before,
                        update.imbalance_after);
  }
  return text;
}

JournalEventKind kind_of(UpdateReason reason) {
  if (reason == UpdateReason::rollback) return JournalEventKind::rollback;
  if (reason == UpdateReason::imported) return JournalEventKind::imported;
  return JournalEventKind::update;
}

}  // namespace

void Journal::decided(const Decision& decision) {
  // Every update is an event; of anything else what matters is when it began and how it stands.
  const bool same = !decisions_.empty() && !decision.update &&
                    decisions_.front().latest.verdict == decision.verdict;
  const double ts = decision.now.unix_seconds;
  if (!same) {
    decisions_.emplace_front().since = ts;
    if (decisions_.size() > kDecisions) decisions_.pop_back();
  }
  JournalDecision& entry = decisions_.front();
  entry.latest = decision;
  entry.latest.update.reset();
  entry.latest.carried.reset();
  entry.ts = ts;
  ++entry.times;
  if (decision.solved) searched_ = entry.latest;
  if (decision.verdict == Verdict::would_update) {
    add_newest(would_updates_, *decision.update);
    happened({ts, JournalEventKind::would_update, "would update: " + text_of(*decision.update)});
  }
}

void Journal::updated(const PlacementUpdate& update) {
  if (update.reason == UpdateReason::resized) {  // the others' moves are of GPUs that were
    updates_.clear();
    would_updates_.clear();
  }
  add_newest(updates_, update);
  happened({update.unix_seconds, kind_of(update.reason),
            fmt::format("version {}: {}", update.id.version, text_of(update))});
}

void Journal::sampled(const JournalSample& sample) { add_back(samples_, sample, kSamples); }

void Journal::happened(JournalEvent event) { add_back(events_, std::move(event), kEvents); }

}  // namespace eplbd
