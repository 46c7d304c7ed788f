// A placement beside the one in force, both under the same load: what is judged before anything is
// made of it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "core/model/placement.h"
#include "core/model/topology.h"

namespace eplbd {

// The load as it is now, and how the placement in force bears it.
struct Measured {
  std::vector<double> loads;  // [layers, logical_experts] the window
  double tokens = 0;          // their sum
  Imbalance imbalance;
};

Measured measure(const Topology& topology, const Placement& in_force, std::vector<double> loads,
                 std::span<const int32_t> gpus_down);

struct MeasuredCandidate {
  Placement placement;
  Imbalance imbalance;  // under the load that was measured
  MoveCount moves;      // from the placement in force
};

MeasuredCandidate measure(const Topology& topology, const Placement& in_force, Placement placement,
                          const Measured& measured, std::span<const int32_t> gpus_down);

// The layers that the candidate changes, those whose peak falls most first.
std::vector<int32_t> layers_by_gain(const Placement& in_force, const Measured& measured,
                                    const MeasuredCandidate& candidate);

}  // namespace eplbd
