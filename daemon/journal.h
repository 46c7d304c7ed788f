// What a deployment did of late, for people: decisions, updates, and how the imbalance went.
// Bounded; lost at a restart.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
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

struct JournalSample {
  double ts = 0;
  double imbalance = 0;
  double imbalance_initial = 0;
};

class Journal {
 public:
  void decided(const Decision& decision);
  void updated(const PlacementUpdate& update);
  void sampled(const JournalSample& sample);

  const std::deque<JournalDecision>& decisions() const { return decisions_; }  // newest first
  const std::deque<PlacementUpdate>& updates() const { return updates_; }      // newest first
  const std::deque<JournalSample>& samples() const { return samples_; }        // oldest first

 private:
  std::deque<JournalDecision> decisions_;
  std::deque<PlacementUpdate> updates_;
  std::deque<JournalSample> samples_;
};

}  // namespace eplbd
