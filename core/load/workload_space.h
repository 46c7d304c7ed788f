// The few directions in which loads move. A load is a mix of workloads, and the mix changes far
// more often than the workloads do: what was seen before spans most of what comes next. Inside
// this space a single second tells where the load stands, as every cell speaks for the same few
// numbers; outside of it there is little but counting noise.
//
// A Frequent Directions sketch (Liberty, "Simple and deterministic matrix sketching", KDD 2013) of
// the loads seen, with slow forgetting.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace eplbd {

class WorkloadSpace {
 public:
  static constexpr size_t kDirections = 8;
  static constexpr size_t kRows = 2 * kDirections;  // of the sketch

  // Requires: cells > 0.
  explicit WorkloadSpace(size_t cells) : cells_(cells) {}

  // Learns from one load [cells]; the directions change.
  void add(std::span<const float> load);

  size_t directions() const { return directions_.size() / cells_; }

  // Where a load [cells] stands: `out` [directions()].
  void project(std::span<const float> load, std::span<double> out) const;

  // Adds the load that stands at `position` [directions()] to `load` [cells].
  void add_to(std::span<float> load, std::span<const double> position) const;

 private:
  std::span<float> sketch_row(size_t row) { return {sketch_.data() + row * cells_, cells_}; }

  void multiply_row(size_t row);

  size_t cells_;
  std::vector<float> sketch_;                     // [rows <= kRows, cells]
  std::array<double, kRows * kRows> products_{};  // [kRows, kRows] of its rows, each by each
  std::vector<float> directions_;  // [directions, cells], orthonormal, the strongest first
};

}  // namespace eplbd
