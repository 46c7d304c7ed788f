// SPDX-License-Identifier: Apache-2.0
#include "core/balance/published/eplb_steps.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "core/balance/regions.h"

namespace eplbd {
namespace {

// What one node is filled with. Indices here count the node's own experts and replicas.
struct Replication {
  std::vector<int32_t> expert;                  // [replicas]
  std::vector<int32_t> rank;                    // [replicas] which replica of its expert
  std::vector<int32_t> count;                   // [experts]
  std::vector<std::pair<float, int32_t>> heap;  // (load of a replica, expert)
};

// Each spare slot goes to the expert whose replicas carry most, the first of equals.
void replicate(std::span<const float> weights, int32_t replicas, Replication& out) {
  const auto heavier = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first : a.second > b.second;
  };
  const auto experts = static_cast<int32_t>(weights.size());
  out.expert.resize(static_cast<size_t>(replicas));
  out.rank.assign(static_cast<size_t>(replicas), 0);
  out.count.assign(weights.size(), 1);
  out.heap.clear();
  for (int32_t expert = 0; expert < experts; ++expert) {
    out.expert[expert] = expert;
    out.heap.emplace_back(weights[expert], expert);
  }
  std::make_heap(out.heap.begin(), out.heap.end(), heavier);
  for (int32_t replica = experts; replica < replicas; ++replica) {
    std::pop_heap(out.heap.begin(), out.heap.end(), heavier);
    auto& [load, expert] = out.heap.back();
    out.expert[replica] = expert;
    out.rank[replica] = out.count[expert]++;
    load = weights[expert] / static_cast<float>(out.count[expert]);
    std::push_heap(out.heap.begin(), out.heap.end(), heavier);
  }
}

// As published, in floats. Loads whose sum may be too large for one are scaled: an infinite pack
// means a full one.
void to_floats(std::span<const double> loads, std::vector<float>& out) {
  const double most = std::numeric_limits<float>::max() / (2.0 * static_cast<double>(loads.size()));
  const double largest = *std::max_element(loads.begin(), loads.end());
  const double scale = largest > most ? most / largest : 1;
  std::transform(loads.begin(), loads.end(), out.begin(),
                 [scale](double load) { return static_cast<float>(load * scale); });
}

// Fills one layer after the other, reusing its memory.
class Steps {
 public:
  Steps(const Topology& topology, const Regions& regions, const Packer& pack)
      : topology_(topology), regions_(regions), pack_(pack) {}

  void place_layer(std::span<const float> loads, std::span<int32_t> slot_to_expert,
                   std::span<int32_t> replica_rank) {
    order_experts(loads);
    const int32_t size = regions_.experts_per_region();
    for (int32_t region = 0; region < regions_.size(); ++region) {
      const std::span<const int32_t> experts(experts_.data() + region * size,
                                             static_cast<size_t>(size));
      place_region(loads, experts, regions_.gpus[region], slot_to_expert, replica_rank);
    }
  }

 private:
  // experts_ [regions, experts_per_region]: the layer's experts in the order of the groups' places.
  void order_experts(std::span<const float> loads) {
    const int32_t size = regions_.experts_per_group;
    group_tokens_.assign(static_cast<size_t>(regions_.groups()), 0.0F);
    for (size_t expert = 0; expert < loads.size(); ++expert) {
      group_tokens_[expert / size] += loads[expert];
    }
    packed_.resize(group_tokens_.size());
    pack_(group_tokens_, regions_.size(), packed_);
    experts_.resize(loads.size());
    for (int32_t group = 0; group < regions_.groups(); ++group) {
      const int32_t place = packed_[group].pack * regions_.groups_per_region + packed_[group].rank;
      for (int32_t i = 0; i < size; ++i) experts_[place * size + i] = group * size + i;
    }
  }

  void place_region(std::span<const float> loads, std::span<const int32_t> experts,
                    std::span<const int32_t> gpus, std::span<int32_t> slot_to_expert,
                    std::span<int32_t> replica_rank) {
    const int32_t slots_per_gpu = topology_.slots_per_gpu();
    weights_.resize(experts.size());
    for (size_t i = 0; i < experts.size(); ++i) weights_[i] = loads[experts[i]];
    const auto replicas = static_cast<int32_t>(gpus.size()) * slots_per_gpu;
    replicate(weights_, replicas, replication_);

    replica_weights_.resize(static_cast<size_t>(replicas));
    for (int32_t i = 0; i < replicas; ++i) {
      const int32_t expert = replication_.expert[i];
      replica_weights_[i] = weights_[expert] / static_cast<float>(replication_.count[expert]);
    }
    packed_.resize(replica_weights_.size());
    pack_(replica_weights_, static_cast<int32_t>(gpus.size()), packed_);
    for (int32_t i = 0; i < replicas; ++i) {
      const int32_t slot = gpus[packed_[i].pack] * slots_per_gpu + packed_[i].rank;
      slot_to_expert[slot] = experts[replication_.expert[i]];
      replica_rank[slot] = replication_.rank[i];
    }
  }

  const Topology& topology_;
  const Regions& regions_;
  const Packer& pack_;
  Replication replication_;
  std::vector<float> group_tokens_, weights_, replica_weights_;
  std::vector<int32_t> experts_;
  std::vector<Packed> packed_;
};

}  // namespace

ScratchPlacement place_in_steps(const BalancerOptions& options, const Topology& topology,
                                std::span<const double> loads, std::span<const int32_t> gpus_down,
                                const Packer& pack) {
  const Regions regions = regions_of(options, topology, gpus_down);
  const auto slots = static_cast<size_t>(topology.slots);
  const auto experts = static_cast<size_t>(topology.logical_experts);
  std::vector<int32_t> slot_to_expert(topology.layers * slots, kNoExpert);
  PublishedForm published;
  published.replica_rank.assign(topology.layers * slots, 0);
  Steps steps(topology, regions, pack);
  std::vector<float> weights(experts);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const auto row = loads.subspan(layer * experts, experts);
    to_floats(row, weights);
    steps.place_layer(weights, {slot_to_expert.data() + layer * slots, slots},
                      {published.replica_rank.data() + layer * slots, slots});
  }
  return {Placement(topology, std::move(slot_to_expert)), regions.hierarchical,
          std::move(published)};
}

}  // namespace eplbd
