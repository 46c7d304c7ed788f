// The calls about one placement: made from loads, counted, measured, checked.
// SPDX-License-Identifier: Apache-2.0
#include "core/model/placement.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "core/balance/bound.h"
#include "core/balance/policies.h"
#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "core/model/time.h"
#include "core/workers/reported_map.h"
#include "lib/arguments.h"

namespace eplbd {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kMostSeconds = 86400;

eplb_solve_options default_solve_options() {
  eplb_solve_options options{};
  options.struct_size = sizeof(options);
  options.policy = EPLB_JOINT;
  options.settle = 1;
  options.min_gain = 0.003;
  return options;
}

// What eplb_solve() was asked for.
struct Task {
  Topology topology;
  std::span<const double> loads;
  eplb_solve_options options;
  BalancerOptions balancer;
  std::vector<int32_t> gpus_down;
  Placement base;  // in force, or the initial one

  bool has_current() const { return options.current != nullptr; }
};

std::vector<int32_t> gpus_down_of(const Topology& topology, const eplb_solve_options& options) {
  if (options.gpus_down_count > 0) check_given(options.gpus_down, "gpus_down");
  std::vector<int32_t> down(options.gpus_down, options.gpus_down + options.gpus_down_count);
  for (size_t i = 0; i < down.size(); ++i) {
    if (down[i] < 0 || down[i] >= topology.gpus || (i > 0 && down[i] <= down[i - 1])) {
      reject("gpus_down", "must be ascending numbers from 0 to " +
                              std::to_string(topology.gpus - 1) + ", none twice");
    }
  }
  return down;
}

Task task_of(const eplb_topology* topology, const double* loads, const eplb_solve_options* given) {
  Task task;
  task.topology = topology_of(topology);
  task.loads = loads_of(task.topology, loads);
  task.options = sized(given, default_solve_options(), "options");
  const eplb_solve_options& options = task.options;
  task.balancer = balancer_of(options.policy, options.hierarchical, options.seed);
  task.gpus_down = gpus_down_of(task.topology, options);
  check_count(options.max_moves, "max_moves");
  check_count(options.max_moves_per_gpu, "max_moves_per_gpu");
  check_range(options.settle, 1, 1e9, "settle");
  check_range(options.min_gain, 0, 1e9, "min_gain");
  check_range(options.time_budget_seconds, 0, kMostSeconds, "time_budget_seconds");
  if (options.time_budget_seconds > 0 && options.policy != EPLB_JOINT) {
    reject("time_budget_seconds", "is for EPLB_JOINT alone: the others end by themselves");
  }
  task.base = options.current ? placement_of(task.topology, options.current, "current")
                              : Placement::initial(task.topology);
  return task;
}

struct Solved {
  Placement placement;
  bool hierarchical = false;
  std::vector<int32_t> replica_rank;  // empty: in slot order
};

std::unique_ptr<ScratchPolicy> scratch_policy(const Task& task) {
  const double seconds = task.options.time_budget_seconds;
  if (seconds == 0) return make_scratch_policy(task.balancer);
  const Clock::time_point end = Clock::now() + from_seconds(seconds);
  return make_joint(task.balancer, [end] { return Clock::now() < end; });
}

Solved solve(const Task& task) {
  std::unique_ptr<ScratchPolicy> scratch = scratch_policy(task);
  if (scratch && !task.has_current()) {
    ScratchPlacement placed = scratch->place(task.topology, task.loads, task.gpus_down);
    Solved solved{std::move(placed.placement), placed.hierarchical, {}};
    if (placed.published) solved.replica_rank = std::move(placed.published->replica_rank);
    return solved;
  }
  const auto balancer = scratch ? make_online(std::move(scratch)) : make_balancer(task.balancer);
  Proposal proposal =
      balancer->propose({.topology = task.topology,
                         .in_force = task.base,
                         .outlook = {.loads = task.loads},
                         .gpus_down = task.gpus_down,
                         .budget = {task.options.max_moves, task.options.max_moves_per_gpu, 0},
                         .settle = task.options.settle,
                         .min_gain = task.options.min_gain});
  return {std::move(proposal.placement), proposal.groups != GroupRule::none, {}};
}

// Replicas in slot order.
std::vector<int32_t> ranks_by_slot(const Topology& topology, const Placement& placement) {
  std::vector<int32_t> ranks;
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    std::vector<int32_t> seen(topology.logical_experts, 0);
    for (const int32_t expert : placement.layer(layer)) {
      ranks.push_back(expert == kNoExpert ? 0 : seen[expert]++);
    }
  }
  return ranks;
}

void check_limits(const Task& task, const MoveCount& moves) {
  const auto over = [](int64_t count, int64_t limit) { return limit > 0 && count > limit; };
  if (!over(moves.total, task.options.max_moves) &&
      !over(moves.worst_gpu, task.options.max_moves_per_gpu)) {
    return;
  }
  throw CallError(EPLB_IMPOSSIBLE, "max_moves",
                  "this placement takes " + std::to_string(moves.total) + " moves, " +
                      std::to_string(moves.worst_gpu) + " to one GPU: more than the limits");
}

double at_least_one(double imbalance) { return std::max(1.0, imbalance); }

void put_imbalance(std::span<const double> layers, double whole_model, double* layers_out,
                   double* whole_model_out) {
  if (layers_out) std::copy(layers.begin(), layers.end(), layers_out);
  if (whole_model_out) *whole_model_out = at_least_one(whole_model);
}

void put_map(const std::vector<int32_t>& map, int32_t* out) {
  std::copy(map.begin(), map.end(), out);
}

eplb_solution solution_of(const Task& task, const Solved& solved, const MoveCount& moves) {
  const Topology& topology = task.topology;
  eplb_solution solution{};
  solution.imbalance = at_least_one(
      imbalance_of(topology, solved.placement, task.loads, task.gpus_down).whole_model);
  solution.moves = moves.total;
  solution.moves_of_one_gpu = moves.worst_gpu;
  solution.hierarchical = solved.hierarchical ? 1 : 0;
  solution.most_replicas = replica_table(topology, solved.placement).width;
  return solution;
}

}  // namespace
}  // namespace eplbd

using namespace eplbd;

void eplb_topology_init(eplb_topology* topology) {
  *topology = {};
  topology->struct_size = sizeof(*topology);
  topology->nodes = topology->groups = 1;
}

void eplb_solve_options_init(eplb_solve_options* options) { *options = default_solve_options(); }

void eplb_solution_init(eplb_solution* solution) {
  *solution = {};
  solution->struct_size = sizeof(*solution);
}

eplb_status eplb_initial(const eplb_topology* topology, int32_t* physical_to_logical,
                         eplb_error* error) {
  return guarded(error, [&] {
    check_given(physical_to_logical, "physical_to_logical");
    put_map(Placement::initial(topology_of(topology)).map(), physical_to_logical);
  });
}

eplb_status eplb_solve(const eplb_topology* topology, const double* loads,
                       const eplb_solve_options* options, int32_t* physical_to_logical,
                       int32_t* replica_rank, eplb_solution* solution, eplb_error* error) {
  return guarded(error, [&] {
    check_given(physical_to_logical, "physical_to_logical");
    const Task task = task_of(topology, loads, options);
    const Solved solved = solve(task);
    const MoveCount moves = count_moves(task.topology, task.base, solved.placement);
    check_limits(task, moves);
    put_sized(solution, solution_of(task, solved, moves), "solution");
    if (replica_rank) {
      put_map(solved.replica_rank.empty() ? ranks_by_slot(task.topology, solved.placement)
                                          : solved.replica_rank,
              replica_rank);
    }
    put_map(solved.placement.map(), physical_to_logical);
  });
}

eplb_status eplb_replicas(const eplb_topology* shape, const int32_t* physical_to_logical,
                          const int32_t* replica_rank, int32_t width, int32_t* logical_to_physical,
                          int32_t* replica_count, eplb_error* error) {
  return guarded(error, [&] {
    const Topology topology = topology_of(shape);
    const Placement placement = placement_of(topology, physical_to_logical, "physical_to_logical");
    const auto slots = static_cast<size_t>(topology.layers) * topology.slots;
    const auto experts = static_cast<size_t>(topology.logical_experts);
    const std::vector<int32_t> ranks =
        replica_rank ? std::vector<int32_t>(replica_rank, replica_rank + slots)
                     : ranks_by_slot(topology, placement);
    const ReplicaTable table = replica_table(topology, placement);
    if (width < table.width) {
      reject("width", "is " + std::to_string(width) + ", but an expert has " +
                          std::to_string(table.width) + " replicas");
    }
    for (size_t i = 0; i < slots; ++i) {
      if (placement.map()[i] == kNoExpert || (ranks[i] >= 0 && ranks[i] < width)) continue;
      reject("replica_rank", "slot " + std::to_string(i % topology.slots) + " of layer " +
                                 std::to_string(i / topology.slots) + " is replica " +
                                 std::to_string(ranks[i]) + " of " + std::to_string(width));
    }
    if (replica_count) put_map(table.logical_replica_count, replica_count);
    if (!logical_to_physical) return;
    std::fill_n(logical_to_physical, topology.layers * experts * width, -1);
    for (size_t i = 0; i < slots; ++i) {
      const int32_t expert = placement.map()[i];
      if (expert == kNoExpert) continue;
      const size_t row = i / topology.slots * experts + expert;
      logical_to_physical[row * width + ranks[i]] = static_cast<int32_t>(i % topology.slots);
    }
  });
}

eplb_status eplb_imbalance(const eplb_topology* shape, const int32_t* physical_to_logical,
                           const double* loads, double* layers, double* whole_model,
                           eplb_error* error) {
  return guarded(error, [&] {
    const Topology topology = topology_of(shape);
    const Placement placement = placement_of(topology, physical_to_logical, "physical_to_logical");
    const Imbalance imbalance = imbalance_of(topology, placement, loads_of(topology, loads),
                                             empty_gpus(topology, placement));
    put_imbalance(imbalance.layers, imbalance.whole_model, layers, whole_model);
  });
}

eplb_status eplb_bound(const eplb_topology* topology, const double* loads,
                       const eplb_solve_options* options, double* layers, double* whole_model,
                       eplb_error* error) {
  return guarded(error, [&] {
    Task task = task_of(topology, loads, options);
    // An update keeps groups where they are, which may be wider than on a node each.
    const bool updates = task.has_current() || task.balancer.policy == Policy::incremental;
    if (updates) task.balancer.hierarchical = Hierarchical::no;
    const ImbalanceBound bound =
        imbalance_bound(task.balancer, task.topology, task.loads, task.gpus_down, true);
    put_imbalance(bound.layers, bound.whole_model, layers, whole_model);
  });
}

eplb_status eplb_check(const eplb_topology* shape, const int32_t* physical_to_logical,
                       eplb_error* error) {
  return guarded(error, [&] {
    const Topology topology = topology_of(shape);
    const Placement placement = placement_of(topology, physical_to_logical, "physical_to_logical");
    const std::vector<int32_t> down = empty_gpus(topology, placement);
    PlacementRules rules;
    rules.gpus_down = down;
    if (const auto violation = find_violation(topology, placement, rules)) {
      reject("physical_to_logical", *violation);
    }
  });
}
