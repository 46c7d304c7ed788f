// SPDX-License-Identifier: Apache-2.0
#include "lib/arguments.h"

#include <algorithm>
#include <cmath>

namespace eplbd {
namespace {

std::string text(double value) {
  std::string digits = std::to_string(value);
  digits.erase(digits.find_last_not_of('0') + 1);
  if (digits.back() == '.') digits.pop_back();
  return digits;
}

// The field that a sentence of Topology::problems() names first.
std::string first_word(const std::string& sentence) {
  return sentence.substr(0, sentence.find(' '));
}

}  // namespace

void reject(std::string argument, const std::string& message) {
  throw CallError(EPLB_INVALID_ARGUMENT, std::move(argument), message);
}

eplb_status fail(eplb_error* error, eplb_status status, std::string_view argument,
                 std::string_view message) {
  if (error) {
    put_text(error->argument, argument);
    put_text(error->message, message);
  }
  return status;
}

Topology topology_of(const eplb_topology* given) {
  check_given(given, "topology");
  eplb_topology fallback;
  eplb_topology_init(&fallback);
  const eplb_topology shape = sized(given, fallback, "topology");
  Topology topology{shape.layers, shape.logical_experts, shape.slots, shape.gpus,
                    shape.nodes,  shape.groups,          {},          {}};
  if (shape.gpu_speeds && shape.gpus > 0) {
    topology.gpu_speeds.assign(shape.gpu_speeds, shape.gpu_speeds + shape.gpus);
  }
  const auto problems = topology.problems();
  if (!problems.empty()) reject(first_word(problems.front()), problems.front());
  return topology;
}

BalancerOptions balancer_of(int32_t policy, int32_t hierarchical, uint64_t seed) {
  if (policy < EPLB_DEEPSEEK || policy > EPLB_INCREMENTAL) {
    reject("policy", "is " + std::to_string(policy) + ", none of the policies");
  }
  if (hierarchical < EPLB_AUTO || hierarchical > EPLB_NO) {
    reject("hierarchical", "is neither EPLB_AUTO, EPLB_YES nor EPLB_NO");
  }
  return {static_cast<Policy>(policy), static_cast<Hierarchical>(hierarchical), seed};
}

std::span<const double> loads_of(const Topology& topology, const double* loads) {
  check_given(loads, "loads");
  const auto experts = static_cast<size_t>(topology.logical_experts);
  const std::span<const double> all(loads, topology.layers * experts);
  double total = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!(all[i] >= 0) || !std::isfinite(all[i])) {
      reject("loads", "layer " + std::to_string(i / experts) + ", expert " +
                          std::to_string(i % experts) + " is " + text(all[i]) +
                          ": loads are finite and at least 0");
    }
    total += all[i];
  }
  if (!std::isfinite(total)) reject("loads", "are too large to add");
  return all;
}

Placement placement_of(const Topology& topology, const int32_t* map, const char* argument) {
  check_given(map, argument);
  std::vector<int32_t> copy(map, map + static_cast<size_t>(topology.layers) * topology.slots);
  for (size_t i = 0; i < copy.size(); ++i) {
    if (copy[i] >= kNoExpert && copy[i] < topology.logical_experts) continue;
    reject(argument, "layer " + std::to_string(i / topology.slots) + ", slot " +
                         std::to_string(i % topology.slots) + " holds " + std::to_string(copy[i]) +
                         ", which is no expert of " + std::to_string(topology.logical_experts));
  }
  return {topology, std::move(copy)};
}

void check_count(int64_t value, const char* argument) {
  if (value < 0) reject(argument, "is " + std::to_string(value) + ", below 0");
}

void check_range(double value, double least, double most, const char* argument) {
  if (value >= least && value <= most) return;
  reject(argument, "is " + text(value) + ", must be " + text(least) + " to " + text(most));
}

}  // namespace eplbd
