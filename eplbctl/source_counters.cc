// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/source_counters.h"

#include <cassert>

namespace eplbd {

SourceCounters::SourceCounters(int32_t sources, int32_t layers, int32_t experts)
    : experts_(experts),
      passed_(sources, std::vector<uint32_t>(static_cast<size_t>(layers) * experts)),
      reported_(static_cast<size_t>(layers) * experts) {}

std::span<const uint32_t> SourceCounters::report(int32_t source, std::span<const uint32_t> counts) {
  assert(counts.size() == reported_.size());
  std::vector<uint32_t>& passed = passed_[source];
  const auto all = static_cast<uint32_t>(sources());
  uint32_t next = 0;      // who gets the first of what does not divide: goes round within a layer
  uint64_t shares = 0;    // of the layer's cells so far
  uint64_t reported = 0;  // of those: their fractions add up, so that all layers have one sum
  for (size_t cell = 0; cell < counts.size(); ++cell) {
    if (cell % static_cast<size_t>(experts_) == 0) {
      next = 0;
      shares = reported = 0;
    }
    const uint32_t rest = counts[cell] % all;
    const uint32_t turn = (static_cast<uint32_t>(source) + all - next) % all;
    const uint32_t share = counts[cell] / all + (turn < rest ? 1 : 0);
    shares += share;
    const auto until = static_cast<uint64_t>(phase(source) * static_cast<double>(shares));
    reported_[cell] = passed[cell] + static_cast<uint32_t>(until - reported);
    reported = until;
    passed[cell] += share;
    next = (next + rest) % all;
  }
  return reported_;
}

}  // namespace eplbd
