// SPDX-License-Identifier: Apache-2.0
#include "core/group_packing.h"

#include <algorithm>
#include <cmath>

namespace eplbd {
namespace {

constexpr double kMostPackings = 10000;

double packings_of(int32_t groups, int32_t nodes) {
  const double log_count = std::lgamma(groups + 1.0) - std::lgamma(nodes + 1.0) -
                           nodes * std::lgamma(groups / nodes + 1.0);
  return std::exp(log_count);
}

}  // namespace

GroupPackings::GroupPackings(int32_t groups, int32_t nodes) : groups_(groups), nodes_(nodes) {
  if (packings_of(groups, nodes) > kMostPackings) return;
  std::vector<int32_t> node_of(static_cast<size_t>(groups));
  std::vector<int32_t> dealt(static_cast<size_t>(nodes));
  deal(0, node_of, dealt);
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

void GroupPackings::fullest_nodes(std::span<const double> tokens,
                                  std::vector<double>& fullest) const {
  fullest.resize(static_cast<size_t>(size()));
  std::vector<double> node_tokens(static_cast<size_t>(nodes_));
  for (int32_t index = 0; index < size(); ++index) {
    std::fill(node_tokens.begin(), node_tokens.end(), 0.0);
    const auto node_of = packing(index);
    for (int32_t group = 0; group < groups_; ++group) {
      node_tokens[node_of[group]] += tokens[group];
    }
    fullest[index] = *std::max_element(node_tokens.begin(), node_tokens.end());
  }
}

}  // namespace eplbd
