// SPDX-License-Identifier: Apache-2.0
#include "core/decide/gain_tracker.h"

#include <algorithm>

#include "core/model/imbalance.h"

namespace eplbd {

GainTracker::GainTracker(const Topology& topology)
    : tokens_(static_cast<size_t>(topology.layers) * topology.logical_experts) {}

void GainTracker::add(std::span<const uint32_t> counts) {
  for (size_t i = 0; i < counts.size(); ++i) tokens_[i] += counts[i];
}

void GainTracker::applied(const Topology& topology, const Placement& previous,
                          const Placement& next) {
  if (const auto gain = realised(topology)) unpaid_ = *gain > 0 ? 0 : unpaid_ + 1;
  previous_ = previous;
  in_force_ = next;
  std::fill(tokens_.begin(), tokens_.end(), 0.0);
}

void GainTracker::adopted() {
  previous_.reset();
  std::fill(tokens_.begin(), tokens_.end(), 0.0);
}

std::optional<double> GainTracker::realised(const Topology& topology) const {
  if (!previous_) return std::nullopt;
  const double before = imbalance_of(topology, *previous_, tokens_).whole_model;
  if (before == 0) return std::nullopt;
  return before - imbalance_of(topology, in_force_, tokens_).whole_model;
}

}  // namespace eplbd
