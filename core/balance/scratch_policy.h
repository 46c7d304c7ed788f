// Policies that place from scratch: loads in, a placement out, whatever is in force.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/balance/balancer.h"
#include "core/model/placement.h"
#include "core/model/topology.h"

namespace eplbd {

// How the program that published a policy would print its placement: slot by slot as it is, with an
// expert twice on a GPU where the packing does that.
struct PublishedForm {
  std::vector<int32_t> replica_rank;  // [layers, slots] which replica of its expert a slot is
  int32_t table_width = 0;            // of logical_to_physical; 0: as many as an expert has at most
};

struct ScratchPlacement {
  Placement placement;
  // Whether groups were kept on nodes; false when the shape, or the GPUs that are up, do not allow
  // what was asked for: the placement is global then.
  bool hierarchical = false;
  std::optional<PublishedForm> published = {};  // nothing: replicas in slot order, none twice
};

class ScratchPolicy {
 public:
  virtual ~ScratchPolicy() = default;
  // `loads` [layers, logical_experts], finite, >= 0; `gpus_down` ascending, their slots stay empty.
  // Throws std::invalid_argument, in a sentence, when the GPUs that are up have too few slots for
  // every expert.
  virtual ScratchPlacement place(const Topology& topology, std::span<const double> loads,
                                 std::span<const int32_t> gpus_down) const = 0;
};

// Null for a policy that starts from the placement in force.
std::unique_ptr<ScratchPolicy> make_scratch_policy(const BalancerOptions& options);

// The same policy where a placement is in force: placed from scratch, without experts twice on a
// GPU, on the GPUs and in the slots that keep most (see matching.h).
std::unique_ptr<Balancer> make_online(std::unique_ptr<ScratchPolicy> policy);

}  // namespace eplbd
