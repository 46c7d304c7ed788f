// SPDX-License-Identifier: Apache-2.0
#include "core/balance/group_packing.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace eplbd {
namespace {

constexpr double kMostPackings = 10000;

// Of n!. lgamma() would do it, but it writes to a global that threads share.
double log_factorial(int32_t n) {
  double sum = 0;
  for (int32_t i = 2; i <= n; ++i) sum += std::log(i);
  return sum;
}

double packings_of(int32_t groups, int32_t nodes) {
  return std::exp(log_factorial(groups) - log_factorial(nodes) -
                  nodes * log_factorial(groups / nodes));
}

}  // namespace

GroupPackings::GroupPackings(int32_t groups, int32_t nodes) : groups_(groups), nodes_(nodes) {
  if (packings_of(groups, nodes) > kMostPackings) return;
  std::vector<int32_t> node_of(static_cast<size_t>(groups));
  std::vector<int32_t> dealt(static_cast<size_t>(nodes));
  deal(0, node_of, dealt);
  list_sets();
}

void GroupPackings::list_sets() {
  std::map<std::vector<int32_t>, int32_t> known;
  for (int32_t index = 0; index < size(); ++index) {
    std::vector<std::vector<int32_t>> sets(static_cast<size_t>(nodes_));
    for (int32_t group = 0; group < groups_; ++group) sets[packing(index)[group]].push_back(group);
    for (const auto& set : sets) {
      const auto [entry, unknown] = known.try_emplace(set, static_cast<int32_t>(known.size()));
      if (unknown) sets_.insert(sets_.end(), set.begin(), set.end());
      set_of_.push_back(entry->second);
    }
  }
  set_tokens_.resize(known.size());
}

// Nodes are alike: of the empty ones only the first is tried.
void GroupPackings::deal(int32_t group, std::vector<int32_t>& node_of,
                         std::vector<int32_t>& dealt) {
  if (group == groups_) {
    node_of_.insert(node_of_.end(), node_of.begin(), node_of.end());
    return;
  }
  for (int32_t node = 0; node < nodes_; ++node) {
    if (dealt[node] == groups_ / nodes_) continue;
    node_of[group] = node;
    ++dealt[node];
    deal(group + 1, node_of, dealt);
    if (--dealt[node] == 0) return;
  }
}

void GroupPackings::fullest_nodes(std::span<const double> tokens, std::vector<double>& fullest) {
  auto group = sets_.begin();
  for (double& sum : set_tokens_) {
    sum = 0;
    for (int32_t i = 0; i < groups_ / nodes_; ++i) sum += tokens[*group++];
  }
  fullest.resize(static_cast<size_t>(size()));
  auto set = set_of_.begin();
  for (double& most : fullest) {
    most = 0;
    for (int32_t node = 0; node < nodes_; ++node) most = std::max(most, set_tokens_[*set++]);
  }
}

}  // namespace eplbd
