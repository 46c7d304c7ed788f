// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/solve.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <utility>

#include "core/balance/bound.h"
#include "core/balance/policies.h"
#include "core/model/imbalance.h"
#include "core/model/migration.h"
#include "core/model/time.h"
#include "eplbctl/errors.h"
#include "eplbctl/placement_file.h"
#include "eplbctl/trace_file.h"

namespace eplbd {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Solution {
  Placement placement;
  bool hierarchical = false;
  std::optional<PublishedForm> published;
  double elapsed_seconds = 0;  // median
};

template <typename Work>
double median_seconds(int repeat, Work work) {
  std::vector<double> seconds;
  for (int i = 0; i < repeat; ++i) {
    const Clock::time_point start = Clock::now();
    work(start);
    seconds.push_back(to_seconds(Clock::now() - start));
  }
  std::sort(seconds.begin(), seconds.end());
  const size_t middle = seconds.size() / 2;
  return seconds.size() % 2 == 1 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
}

Solution improve(const Balancer& balancer, const BalanceRequest& request, int repeat) {
  Solution solution;
  Proposal proposal;
  solution.elapsed_seconds =
      median_seconds(repeat, [&](auto) { proposal = balancer.propose(request); });
  solution.placement = std::move(proposal.placement);
  solution.hierarchical = proposal.groups != GroupRule::none;
  return solution;
}

Solution place(const SolveOptions& options, const Topology& topology,
               const std::vector<double>& loads, const ScratchPolicy& policy,
               Clock::time_point& search_until) {
  Solution solution;
  ScratchPlacement placed;
  solution.elapsed_seconds = median_seconds(options.repeat, [&](Clock::time_point start) {
    search_until = start + from_seconds(options.search_seconds);
    placed = policy.place(topology, loads, {});
  });
  solution.placement = std::move(placed.placement);
  solution.hierarchical = placed.hierarchical;
  solution.published = std::move(placed.published);
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

// logical_to_physical as the policy would print it.
ordered_json replica_lists(const Topology& topology, const Solution& solution, int32_t most) {
  const auto& published = solution.published;
  const int32_t width = published && published->table_width > 0 ? published->table_width : most;
  const size_t cells = static_cast<size_t>(topology.layers) * topology.logical_experts;
  std::vector<int32_t> lists(cells * width, -1);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    std::vector<int32_t> seen(topology.logical_experts, 0);
    for (int32_t slot = 0; slot < topology.slots; ++slot) {
      const size_t at = static_cast<size_t>(layer) * topology.slots + slot;
      const int32_t expert = solution.placement.map()[at];
      if (expert < 0) continue;
      const int32_t rank = published ? published->replica_rank[at] : seen[expert]++;
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

void warn_when_global(const Topology& topology) {
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
                    const Solution& solution) {
  const Placement& placement = solution.placement;
  const ReplicaTable table = replica_table(topology, placement);
  const Imbalance imbalance = imbalance_of(topology, placement, loads);
  const MoveCount moves = count_moves(topology, base, placement);
  ordered_json json;
  json["policy"] = to_string(options.balancer.policy);
  json["hierarchical"] = solution.hierarchical;
  json["balancedness"] = imbalance.whole_model > 0 ? 1 / imbalance.whole_model : 1.0;
  json["imbalance"] = std::max(1.0, imbalance.whole_model);
  json["moves"] = moves.total;
  json["max_moves_per_gpu"] = moves.worst_gpu;
  json["elapsed_seconds"] = solution.elapsed_seconds;
  json["imbalance_per_layer"] = at_least_one(imbalance.layers);
  json["physical_to_logical_map"] =
      rows(std::span<const int32_t>(placement.map()), topology.layers);
  json["logical_to_physical_map"] = replica_lists(topology, solution, table.width);
  json["logical_count"] =
      rows(std::span<const int32_t>(table.logical_replica_count), topology.layers);
  return json;
}

Solution solve(const SolveOptions& options, const Topology& topology,
               const std::vector<double>& loads, const Placement& current) {
  Clock::time_point search_until;
  const auto searching = [&search_until] { return Clock::now() < search_until; };
  const auto scratch = options.search_seconds > 0 ? make_joint(options.balancer, searching)
                                                  : make_scratch_policy(options.balancer);
  const Hierarchical wish = options.balancer.hierarchical;
  const bool usual = scratch && topology.groups > 1 && topology.nodes > 1;
  const bool grouped = wish == Hierarchical::yes || (wish == Hierarchical::automatic && usual);
  Solution solution;
  if (scratch) {
    solution = place(options, topology, loads, *scratch, search_until);
    if (!options.current.empty() && !solution.published) {
      solution.placement = keep_slots(topology, current, solution.placement);
    }
  } else {
    const BalanceRequest request{.topology = topology,
                                 .in_force = current,
                                 .outlook = {.loads = loads, .steady_loads = {}},
                                 .gpus_down = {},
                                 .budget = options.budget,
                                 .settle = options.settle};
    solution = improve(*make_balancer(options.balancer), request, options.repeat);
  }
  if (grouped && !solution.hierarchical) warn_when_global(topology);
  return solution;
}

}  // namespace

int run_solve(const SolveOptions& options) {
  const TraceFile file(options.loads);
  const std::vector<double> loads = file.sum();
  check_loads(loads, options.loads);
  const Topology topology = topology_from(options.shape, file.layers(), file.experts());
  const Placement current = options.current.empty() ? Placement::initial(topology)
                                                    : read_placement(options.current, topology);
  const Solution solution = solve(options, topology, loads, current);
  PlacementRules rules;
  rules.allow_duplicates = solution.published.has_value();
  if (const auto violation = find_violation(topology, solution.placement, rules)) {
    throw std::runtime_error("the policy's placement is not valid: " + *violation);
  }
  ordered_json json = answer(topology, options, loads, current, solution);
  if (options.bound) {
    const ImbalanceBound bound = imbalance_bound(options.balancer, topology, loads, {}, true);
    json["bound"] = std::max(1.0, bound.whole_model);
    json["bound_per_layer"] = at_least_one(bound.layers);
  }
  std::cout << json.dump() << '\n';
  return 0;
}

}  // namespace eplbd
