// The policy interface: a placement in force and an outlook on the load in, a better placement out.
// Pure and deterministic for a given seed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

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

// What is known of the load to come; see core/load/adaptive_window.h.
struct Outlook {
  std::span<const double> loads;  // [layers, logical_experts], finite, >= 0: the one to plan for
  std::span<const double> steady_loads = {};  // [layers, logical_experts] of longer ago, or empty
  double error = 0;                           // of an expert's load, in mean expert loads
  double newest_share = 0;  // of the tokens that `loads` was read from, the newest; 0: not known
};

struct BalanceRequest {
  const Topology& topology;
  const Placement& in_force;
  Outlook outlook;
  std::span<const int32_t> gpus_down = {};  // ascending; their slots stay empty
  // A policy that moves slot by slot keeps to the budget. One that places from scratch knows only
  // the whole of its placement: it proposes that, and who asked refuses what costs too much.
  MoveBudget budget = {};
  int64_t steps = 0;    // of a search, for all layers; 0: as many as it takes
  double settle = 1.0;  // expected imbalance of a layer from which no more moves are worth it
  // trigger.min_gain: what balance is worth against weights to fetch, so the price of a move
  // follows it; 0: moves are free.
  double min_gain = 0.003;
  // How long an update takes to be applied. Where that is slow there are few, whatever a move
  // costs, so each may spend more.
  double apply_seconds = 0;
};

struct Proposal {
  Placement placement;  // an expert that stays on its GPU keeps the slot it has in force
  GroupRule groups = GroupRule::none;  // that `placement` obeys
  // Drop of the whole model's expected imbalance, chance included, where the policy knows it. Of
  // several GPUs that are full, lowering one gains little of that, though the largest load may
  // fall.
  std::optional<double> expected_gain = {};
};

class Balancer {
 public:
  virtual ~Balancer() = default;
  // The placement in force where nothing is better. Throws std::invalid_argument, in a sentence,
  // when the GPUs that are up have too few slots for every expert.
  virtual Proposal propose(const BalanceRequest& request) const = 0;
};

std::unique_ptr<Balancer> make_balancer(const BalancerOptions& options);

// Whether a policy under these options obeys groups and nodes for this topology. `automatic`: as
// the originals for from-scratch policies (where the shape divides), global for `incremental`.
// A hierarchical `incremental` never spreads a group over more nodes than before.
bool places_hierarchically(const BalancerOptions& options, const Topology& topology);

}  // namespace eplbd
