// What each of several sources has counted of the traffic that they share, and when it says so:
// the sources of `replay` and of `load`.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace eplbd {

// Every token is counted by one source, and every source counts the same part of each layer's. Each
// reports once a step, out of step with the others: source i of n (i + 1) / n of a step after its
// begin, so that the last one, and a single one, reports at its end. A step's tokens come evenly
// over it; so a report holds the end of one step and the begin of the next.
class SourceCounters {
 public:
  // Requires: sources > 0.
  SourceCounters(int32_t sources, int32_t layers, int32_t experts);

  int32_t sources() const { return static_cast<int32_t>(passed_.size()); }

  // Part of a step that has passed when the source reports, in (0, 1].
  double phase(int32_t source) const { return (source + 1.0) / sources(); }

  // Its running counter [layers, experts], modulo 2^32, when it reports within the step of these
  // counts [layers, experts]; valid until the next call. Requires: once a source and step.
  std::span<const uint32_t> report(int32_t source, std::span<const uint32_t> counts);

 private:
  int32_t experts_;
  std::vector<std::vector<uint32_t>> passed_;  // [sources][layers * experts], of the steps before
  std::vector<uint32_t> reported_;
};

}  // namespace eplbd
