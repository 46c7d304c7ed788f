// Which expert group goes to which node: every possibility where there are few.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace eplbd {

// All ways to deal `groups` groups to like nodes, the same number to each: 105 for 8 groups on 4
// nodes. Empty when there are too many to try.
class GroupPackings {
 public:
  // Requires: groups % nodes == 0.
  GroupPackings(int32_t groups, int32_t nodes);

  int32_t size() const { return static_cast<int32_t>(node_of_.size()) / groups_; }
  std::span<const int32_t> packing(int32_t index) const {  // [groups] node of each
    return {node_of_.data() + static_cast<size_t>(index) * groups_, static_cast<size_t>(groups_)};
  }

  // Of every packing the tokens of its fullest node. Requires: tokens [groups].
  void fullest_nodes(std::span<const double> tokens, std::vector<double>& fullest);

 private:
  void list_sets();
  void deal(int32_t group, std::vector<int32_t>& node_of, std::vector<int32_t>& dealt);

  int32_t groups_;
  int32_t nodes_;
  std::vector<int32_t> node_of_;  // [packings, groups]
  // Most packings share their nodes with others: each set of groups is added up once.
  std::vector<int32_t> sets_;       // [sets, groups of a node]
  std::vector<int32_t> set_of_;     // [packings, nodes]
  std::vector<double> set_tokens_;  // [sets]
};

}  // namespace eplbd
