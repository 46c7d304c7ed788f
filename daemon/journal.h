// What a deployment did of late, for people: decisions, updates, and how the imbalance went.
// Bounded; lost at a restart.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "core/decide/decision.h"

namespace eplbd {

// A run of decisions with the same verdict.
struct JournalDecision {
  Decision latest;   // without its update
  double since = 0;  // Unix seconds of the first
  double ts = 0;     // and of the newest
  uint64_t times = 0;
};

// What was so at a moment; 0: not known.
struct JournalSample {
  double ts = 0;  // Unix seconds
  double imbalance = 0;
  double imbalance_initial = 0;
  double worst_layer = 0;  // imbalance of the layer where it is highest
  double imbalance_measured = 0;
  double imbalance_floor = 0;
  double imbalance_would_be = 0;  // had shadow's last update been made
};

enum class JournalEventKind {
  update,
  would_update,
  rollback,
  imported,
  adopted,
  pause,
  resume,
  mode,
  gpu,
  reload
};
constexpr auto names(JournalEventKind) {
  return std::to_array<std::string_view>({"update", "would_update", "rollback", "imported",
                                          "adopted", "pause", "resume", "mode", "gpu", "reload"});
}

// What samples are seen against.
struct JournalEvent {
  double ts = 0;  // Unix seconds
  JournalEventKind kind = JournalEventKind::update;
  std::string text;  // a sentence for people
};

class Journal {
 public:
  void decided(const Decision& decision);
  void updated(const PlacementUpdate& update);
  void sampled(const JournalSample& sample);
  void happened(JournalEvent event);

  const std::deque<JournalDecision>& decisions() const { return decisions_; }  // newest first
  const std::optional<Decision>& searched() const { return searched_; }  // the newest that did
  // Published, and what shadow would have published; newest first, without their maps.
  const std::deque<PlacementUpdate>& updates() const { return updates_; }
  const std::deque<PlacementUpdate>& would_updates() const { return would_updates_; }
  // Of the last hour, oldest first.
  const std::deque<JournalSample>& samples() const { return samples_; }
  const std::deque<JournalEvent>& events() const { return events_; }

 private:
  std::deque<JournalDecision> decisions_;
  std::optional<Decision> searched_;
  std::deque<PlacementUpdate> updates_;
  std::deque<PlacementUpdate> would_updates_;
  std::deque<JournalSample> samples_;
  std::deque<JournalEvent> events_;
};

}  // namespace eplbd
