// Tells from reports alone that the load is no longer the one that came before, and what it is now.
//
// A report is surprising when its squared distance from the load expected, over what counting noise
// makes of it, is above what is usual for its source by more than chance does once in a million
// reports. The first one raises a suspicion, which says nothing yet: it may be its source alone,
// and the others have not told. Once all have reported, it was a jump if most tokens came in
// surprising reports.
//
// A report that covers the moment of the jump holds both mixes. Where reports come out of step, the
// later ones then lie further from the load before, in proportion to how much of their time came
// after the jump: that tells the load since, though no report holds it alone. Where several sources
// report at one time it is not told, and their next reports are waited for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/load/arrivals.h"
#include "core/model/time.h"
#include "core/model/topology.h"
#include "core/model/vector_kernel.h"

namespace eplbd {

// How far a source's reports usually lie from what is expected of them: the logarithm of their
// squared distance over that of counting noise. 0: as chance has it; more where requests come in
// bursts, or are unlike those of other sources.
class UsualSurprise {
 public:
  // The highest that is no surprise, where chance alone has this standard deviation; nothing: of
  // too few reports to tell.
  std::optional<double> most(double spread_by_chance) const;
  double mean() const { return mean_; }

  // A report was that surprising. Learns from the one before, unless that told of a jump: `jumps`
  // counts those.
  void add(double surprise, uint64_t jumps);

 private:
  double mean_ = 0;
  double variance_ = 0;
  int32_t reports_ = 0;  // learned from
  std::optional<double> newest_;
  uint64_t jumps_ = 0;
};

class JumpDetector {
 public:
  explicit JumpDetector(const Topology& topology);

  // The load [layers, logical_experts] that reports are expected to follow, in the tokens that it
  // was learned from. While a jump is suspected it stays what it was.
  void expect(std::span<const double> loads);

  // Shares [layers, logical_experts] of its layer's tokens that a cell is expected to have.
  std::span<const float> shares() const { return expected_; }

  // The newest message of these arrivals, which expect shares(), and how surprising its source's
  // usually are.
  void add(const Arrivals& message, Duration covered, TimePoint now, UsualSurprise& usual);

  // When the first surprising report came; nothing: there is no suspicion.
  std::optional<TimePoint> suspected_at() const { return suspected_at_; }
  // Reports that came at this time or later are gathered, and all sources must have sent one before
  // settle(); nothing: there is no suspicion.
  std::optional<TimePoint> gathered_since() const { return gathered_since_; }

  // Ends the suspicion, or gathers once more. Where it was a jump: how long ago, and the load since
  // [layers, logical_experts], in the tokens that it is worth.
  std::optional<Duration> settle(TimePoint now, std::span<double> loads);

 private:
  // Of a report from the load expected.
  struct Distance {
    double squared = 0;    // in tokens
    double by_chance = 0;  // what is expected of it
    double spread = 0;     // standard deviation, by chance, of the logarithm of their ratio
  };
  Distance distance(const Arrivals& message) const;
  void gather(std::span<const uint32_t> counts, double tokens, double part, double noise);
  bool alike() const;
  double straddling(double parallel, double late_squares) const;
  void read_load(std::span<double> loads) const;

  size_t layers_;
  size_t experts_;
  AlignedVector<float> expected_;       // [cells] shares of their layer's tokens
  std::vector<double> known_;           // [layers] tokens that those were learned from
  std::vector<double> chance_;          // [layers] sum of share x (1 - share)
  std::vector<double> chance_squares_;  // [layers] sum of its squares
  uint64_t jumps_ = 0;
  TimePoint reported_at_{};  // the newest report

  // ---- Since a jump is suspected. `part`: of a report's time, what lies after the jump ----
  std::optional<TimePoint> suspected_at_;
  std::optional<TimePoint> gathered_since_;
  int32_t gathered_ = 0;          // reports
  bool whole_ = false;            // one of them surely covers nothing from before the jump
  bool again_ = false;            // it is their second time
  TimePoint jumped_at_{};         // at the earliest
  std::vector<double> all_;       // [cells] counts
  std::vector<double> late_;      // [cells] counts x part
  std::array<double, 3> tokens_;  // sums of tokens x part^0, part^1, part^2
  std::array<double, 3> noise_;   // the same of what is usual of squared distances
  double surprising_tokens_ = 0;
};

}  // namespace eplbd
