// The policy interface: loads in, a placement out. Pure and deterministic for a given seed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/model/names.h"
#include "core/model/placement.h"
#include "core/model/topology.h"

namespace eplbd {

enum class Policy { deepseek, evolved, joint, incremental };
constexpr auto names(Policy) {
  return std::to_array<std::string_view>({"deepseek", "evolved", "joint", "incremental"});
}

enum class Hierarchical { automatic, yes, no };  // balancer.hierarchical: auto | true | false

struct BalancerOptions {
  Policy policy = Policy::incremental;
  Hierarchical hierarchical = Hierarchical::automatic;
  uint64_t seed = 0;
};

// What an update may cost. 0: no limit.
struct MoveBudget {
  int64_t moves = 0;
  int64_t moves_per_gpu = 0;  // incoming
  int64_t layers = 0;
};

struct BalanceRequest {
  const Topology& topology;
  std::span<const double> loads;            // [layers, logical_experts], finite, >= 0
  const Placement* current = nullptr;       // in force; `incremental` requires it, others ignore it
  std::span<const int32_t> gpus_down = {};  // ascending; their slots stay empty
  MoveBudget budget = {};
  double settle = 1.0;  // expected imbalance of a layer at which `incremental` stops
  // `incremental` only: trigger.min_gain. It says what balance is worth against weights to fetch,
  // so the price of a move follows it (its square root); 0: moves are free.
  double min_gain = 0.003;
  // `incremental` only: how long an update takes to be applied. Where that is slow there are few,
  // whatever a move costs, so each may spend more.
  double apply_seconds = 0;
  // `incremental` only, what AdaptiveWindow knows beside `loads`:
  std::span<const double> steady_loads =
      {};                     // [layers, logical_experts] of longer ago; empty: none
  double forecast_error = 0;  // of an expert's load, in mean expert loads
  double forecast_drift = 0;  // how far that load moves within seconds; 0: not known
  // `joint` only, for a time budget (core reads no clock): after its own end it goes on searching
  // the layers that are off their bound while this says true, asked every few dozen microseconds.
  // More time never makes a layer worse. Empty: it stops at its own end.
  std::function<bool()> keep_searching = {};
};

struct BalanceResult {
  std::vector<int32_t> slot_to_expert;  // [layers, slots]
  // [layers, slots], which replica of its expert a slot is, where the policy gives an order of its
  // own (`deepseek`, `evolved`); empty: replicas in slot order.
  std::vector<int32_t> replica_rank;
  // Whether groups were kept on nodes; false when the shape, or the GPUs that are up, do not allow
  // what was asked for: the placement is global then.
  bool hierarchical = false;
  // `incremental` only: drop of the whole model's expected imbalance, chance included. Of several
  // GPUs that are full, lowering one gains little of that, though the largest load may fall.
  std::optional<double> expected_gain = {};
};

class Balancer {
 public:
  virtual ~Balancer() = default;
  // From-scratch policies throw std::invalid_argument, in a sentence, when the GPUs that are up
  // have too few slots for every expert.
  virtual BalanceResult place(const BalanceRequest& request) const = 0;
};

std::unique_ptr<Balancer> make_balancer(const BalancerOptions& options);

// Whether a policy under these options obeys groups and nodes for this topology. `automatic`: as
// the originals for from-scratch policies (where the shape divides), global for `incremental`.
// A hierarchical `incremental` never spreads a group over more nodes than before.
bool places_hierarchically(const BalancerOptions& options, const Topology& topology);

}  // namespace eplbd
