// The load that comes next, from the loads that came: a window whose memory tunes itself.
//
// Several half-lives stand side by side; each is scored by how well it predicted the counts that
// came next. What the score finds is split in two: inside the space of known workloads (see
// workload_space.h), where the newest counts tell most, a short memory wins; outside of it, where
// counting noise dominates, a long one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/load/arrivals.h"
#include "core/load/workload_space.h"
#include "core/model/time.h"
#include "core/model/topology.h"
#include "core/model/vector_kernel.h"

namespace eplbd {

class LoadForecast {
 public:
  explicit LoadForecast(const Topology& topology);

  // As LoadWindow::add. Takes effect with the next fold.
  void add(std::span<const uint32_t> counts, Duration covered, TimePoint) {
    add_pending(counts, covered, covered);
  }
  // The same of all these messages at once.
  void add(const Arrivals& arrivals) {
    add_pending(arrivals.sums(), arrivals.covered(), arrivals.longest());
  }

  // As AdaptiveWindow::jump: folded at once, and no error of the forecasts, which could not know.
  void jump(std::span<const double> loads, Duration covered, TimePoint now);

  // Folds what came into the memories, as soon as it covers the interval at which sources report:
  // sooner, some would speak for all. True: it did.
  bool tick(TimePoint now);

  // Expected load [layers, logical_experts], in the tokens that half_life() holds.
  void read(TimePoint now, std::span<double> loads) const;
  // The load over the last seconds, as if no jump had been: what may come back.
  void read_steady(std::span<double> loads) const;
  double tokens(TimePoint now) const;
  Duration half_life() const;  // outside the space of known workloads

  // By how much an expert's load missed its forecast lately (root mean square, in mean expert
  // loads): counting noise, and what the load did by itself.
  double error() const;

  // Of the tokens that read() goes by, those of the newest fold: how little else is known.
  double newest_share() const { return newest_share_; }

 private:
  // Everything decays with one half-life; loads are sums of (tokens x load), so that a second with
  // few tokens counts little.
  struct Memory {
    Duration half_life{};
    double tokens = 0;
    std::vector<double> layer_tokens;  // [layers]
    AlignedVector<float> loads;        // [cells]
    std::vector<double> position;      // [directions] of `loads` in the space
    double inside_error = 0;           // of its predictions, decayed sums of squares
    double outside_error = 0;
  };

  void add_pending(std::span<const uint32_t> counts, Duration covered, Duration longest);
  void fold(TimePoint now, bool jumped);
  void normalise_pending(std::span<float> load, bool jumped);
  void take_in(std::span<const float> load, std::span<const double> position, double elapsed,
               double doubt, Memory& memory) const;
  size_t best(double Memory::*error) const;
  void start_block(int folds);
  void learn(std::span<const float> load);
  void predict(std::span<float> load) const;

  size_t layers_;
  size_t experts_;
  WorkloadSpace space_;
  std::vector<Memory> memories_;
  Memory steady_;  // forgets by time alone, whatever jumps there are
  size_t inside_;  // the memories in force
  size_t outside_;
  double squared_error_ = 0;  // of the forecasts lately, a cell
  double usual_error_ = 0;    // of forecasts: tokens x squares, a cell
  double newest_share_ = 0;
  double surprise_ = 0;                 // of the load being folded: its excess over that
  std::vector<double> pending_;         // [cells] tokens since the last fold
  std::vector<double> pending_layers_;  // [layers]
  double pending_tokens_ = 0;
  double pending_covered_ = 0;  // tokens x seconds that they cover
  Duration pending_longest_{};
  std::optional<TimePoint> folded_at_;
  std::vector<float> block_;  // [cells] what the space learns from next
  double block_tokens_ = 0;
  int block_folds_ = 0;
};

}  // namespace eplbd
