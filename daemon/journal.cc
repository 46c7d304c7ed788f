// SPDX-License-Identifier: Apache-2.0
#include "daemon/journal.h"

namespace eplbd {
namespace {

constexpr size_t kDecisions = 50;
constexpr size_t kUpdates = 20;
constexpr size_t kSamples = 600;  // one a second

// In the journal an update is told, not carried out: its map is not needed.
PlacementUpdate without_map(const PlacementUpdate& update) {
  PlacementUpdate told = update;
  told.placement = Placement();
  return told;
}

}  // namespace

void Journal::decided(const Decision& decision) {
  // Every update is an event; of anything else what matters is when it began and how it stands.
  const bool same = !decisions_.empty() && !decision.update &&
                    decisions_.front().latest.verdict == decision.verdict;
  if (!same) {
    decisions_.push_front({{}, decision.now.unix_seconds, 0, 0});
    if (decisions_.size() > kDecisions) decisions_.pop_back();
  }
  JournalDecision& entry = decisions_.front();
  entry.latest = decision;
  entry.latest.update.reset();
  entry.ts = decision.now.unix_seconds;
  ++entry.times;
}

void Journal::updated(const PlacementUpdate& update) {
  updates_.push_front(without_map(update));
  if (updates_.size() > kUpdates) updates_.pop_back();
}

void Journal::sampled(const JournalSample& sample) {
  samples_.push_back(sample);
  if (samples_.size() > kSamples) samples_.pop_front();
}

}  // namespace eplbd
