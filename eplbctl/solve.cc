// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/solve.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/balance/bound.h"
#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "eplbctl/errors.h"
#include "eplbctl/placement_file.h"
#include "eplbctl/trace_file.h"

namespace eplbd {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Solution {
  BalanceResult result;
  double elapsed_seconds = 0;  // median
};

Solution solve(const Balancer& balancer, BalanceRequest request, const SolveOptions& options) {
  Solution solution;
  std::vector<double> seconds;
  for (int i = 0; i < options.repeat; ++i) {
    const Clock::time_point start = Clock::now();
    if (options.search_seconds > 0) {
      const Clock::time_point end =
          start + std::chrono::duration_cast<Clock::duration>(
                      std::chrono::duration<double>(options.search_seconds));
      request.keep_searching = [end] { return Clock::now() < end; };
    }
    solution.result = balancer.place(request);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  const size_t middle = seconds.size() / 2;
  solution.elapsed_seconds =
      seconds.size() % 2 == 1 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
  return solution;
}

template <typename T>
ordered_json rows(std::span<const T> flat, size_t count) {
  ordered_json list = ordered_json::array();
  const size_t width = flat.size() / count;
  for (size_t row = 0; row < count; ++row) {
    const std::span<const T> values = flat.subspan(row * width, width);
    list.emplace_back(ordered_json(std::vector<T>(values.begin(), values.end())));
  }
  return list;
}

// The seed's table is as wide as an expert could need: all redundant slots and its own.
int32_t replica_width(const Topology& topology, const ReplicaTable& table, Policy policy) {
  return policy == Policy::evolved ? topology.slots - topology.logical_experts + 1 : table.width;
}

ordered_json replica_lists(const Topology& topology, const BalanceResult& result, int32_t width) {
  const size_t cells = static_cast<size_t>(topology.layers) * topology.logical_experts;
  std::vector<int32_t> lists(cells * width, -1);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    std::vector<int32_t> seen(topology.logical_experts, 0);
    for (int32_t slot = 0; slot < topology.slots; ++slot) {
      const size_t at = static_cast<size_t>(layer) * topology.slots + slot;
      const int32_t expert = result.slot_to_expert[at];
      if (expert < 0) continue;
      const int32_t rank = result.replica_rank.empty() ? seen[expert]++ : result.replica_rank[at];
      lists[(static_cast<size_t>(layer) * topology.logical_experts + expert) * width + rank] = slot;
    }
  }
  ordered_json layers = ordered_json::array();
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const size_t stride = static_cast<size_t>(topology.logical_experts) * width;
    layers.push_back(rows(std::span<const int32_t>(lists).subspan(layer * stride, stride),
                          topology.logical_experts));
  }
  return layers;
}

void check_loads(const std::vector<double>& loads, const std::string& file) {
  double total = 0;
  for (const double load : loads) total += load;
  if (!std::isfinite(total)) throw std::runtime_error(file + ": its loads are too large to add");
}

void warn_when_global(const SolveOptions& options, const Topology& topology,
                      const BalanceResult& result) {
  const bool asked =
      options.balancer.hierarchical == Hierarchical::yes ||
      (options.balancer.hierarchical == Hierarchical::automatic && topology.groups > 1 &&
       topology.nodes > 1 && options.balancer.policy != Policy::incremental);
  if (!asked || result.hierarchical) return;
  std::cerr << "eplbctl: solve: placed globally: " << topology.groups << " groups of "
            << topology.logical_experts << " experts do not divide over " << topology.nodes
            << " nodes\n";
}

// A layer without load has an imbalance of 0 in core; it is balanced.
std::vector<double> at_least_one(std::vector<double> imbalances) {
  for (double& imbalance : imbalances) imbalance = std::max(1.0, imbalance);
  return imbalances;
}

ordered_json answer(const Topology& topology, const SolveOptions& options,
                    const std::vector<double>& loads, const Placement& base,
                    const Solution& solution, const Placement& placement) {
  const ReplicaTable table = replica_table(topology, placement);
  const Imbalance imbalance = imbalance_of(topology, placement, loads);
  const MoveCount moves = count_moves(topology, base, placement);
  ordered_json json;
  json["policy"] = to_string(options.balancer.policy);
  json["hierarchical"] = solution.result.hierarchical;
  json["balancedness"] = imbalance.whole_model > 0 ? 1 / imbalance.whole_model : 1.0;
  json["imbalance"] = std::max(1.0, imbalance.whole_model);
  json["moves"] = moves.total;
  json["max_moves_per_gpu"] = moves.worst_gpu;
  json["elapsed_seconds"] = solution.elapsed_seconds;
  json["imbalance_per_layer"] = at_least_one(imbalance.layers);
  json["physical_to_logical_map"] =
      rows(std::span<const int32_t>(placement.map()), topology.layers);
  json["logical_to_physical_map"] = replica_lists(
      topology, solution.result, replica_width(topology, table, options.balancer.policy));
  json["logical_count"] =
      rows(std::span<const int32_t>(table.logical_replica_count), topology.layers);
  return json;
}

}  // namespace

int run_solve(const SolveOptions& options) {
  const TraceFile file(options.loads);
  const std::vector<double> loads = file.sum();
  check_loads(loads, options.loads);
  const Topology topology = topology_from(options.shape, file.layers(), file.experts());
  const Placement current = options.current.empty() ? Placement::initial(topology)
                                                    : read_placement(options.current, topology);
  const std::unique_ptr<Balancer> balancer = make_balancer(options.balancer);
  BalanceRequest request{.topology = topology,
                         .loads = loads,
                         .current = &current,
                         .gpus_down = {},
                         .budget = options.budget,
                         .settle = options.settle,
                         .keep_searching = {}};
  Solution solution = solve(*balancer, request, options);

  const Policy policy = options.balancer.policy;
  const bool original = policy == Policy::deepseek || policy == Policy::evolved;
  Placement placement(topology, solution.result.slot_to_expert);
  if (policy == Policy::joint && !options.current.empty()) {
    placement = keep_slots(topology, current, placement);
    solution.result.slot_to_expert = placement.map();
  }
  PlacementRules rules;
  rules.allow_duplicates = original;
  if (const auto violation = find_violation(topology, placement, rules)) {
    throw std::runtime_error("the policy's placement is not valid: " + *violation);
  }
  warn_when_global(options, topology, solution.result);
  ordered_json json = answer(topology, options, loads, current, solution, placement);
  if (options.bound) {
    const ImbalanceBound bound = imbalance_bound(options.balancer, request);
    json["bound"] = std::max(1.0, bound.whole_model);
    json["bound_per_layer"] = at_least_one(bound.layers);
  }
  std::cout << json.dump() << '\n';
  return 0;
}

}  // namespace eplbd
