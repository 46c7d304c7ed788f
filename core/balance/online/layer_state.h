// One layer of a placement while `incremental` improves it: what lies where, how full the GPUs are
// under each load, and what a replica more or less would change.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/balance/online/climb_kernels.h"
#include "core/model/placement.h"
#include "core/model/topology.h"

namespace eplbd {

struct SlotChange {
  int32_t slot = 0;
  int32_t expert = 0;
};

// One improvement: one slot turned over, or two exchanged.
struct ClimbStep {
  SlotChange changes[2];
  int32_t count = 0;
  int32_t moves = 0;  // more than before, against the layer as it was given
};

struct Candidate {
  ClimbStep step;
  float worth = 0;  // drop of the sum of powers, per move
};

// A load [logical_experts] to plan for, and how much it counts; the weights of all sum to 1.
struct WeighedLoad {
  std::span<const double> loads;
  double weight = 0;
};

// The slots that hold each expert, as chains.
class Holders {
 public:
  void clear(int32_t experts, int32_t slots);
  void add(int32_t expert, int32_t slot);
  void remove(int32_t expert, int32_t slot);

  template <typename Visit>
  void for_each(int32_t expert, Visit visit) const {
    for (int32_t slot = first_[expert]; slot >= 0; slot = next_[slot]) visit(slot);
  }

 private:
  std::vector<int32_t> first_;  // [experts] -1: none
  std::vector<int32_t> next_;   // [slots] -1: no more
};

// Numbers below `end`, each once, in the order in which they came. Emptied in as many steps as
// there are.
class OnceList {
 public:
  explicit OnceList(int32_t end) : is_in_(end) {}
  // Whether it was not in there yet.
  bool add(int32_t number) {
    if (is_in_[number]) return false;
    is_in_[number] = 1;
    numbers_.push_back(number);
    return true;
  }
  void clear() {
    for (const int32_t number : numbers_) is_in_[number] = 0;
    numbers_.clear();
  }
  auto begin() const { return numbers_.begin(); }
  auto end() const { return numbers_.end(); }

 private:
  std::vector<int32_t> numbers_;
  std::vector<char> is_in_;
};

// Fields are for reading; functions change them. "padded": to a multiple of kBlock.
class LayerState {
 public:
  LayerState(const Topology& topology, std::span<const int32_t> gpus_down, bool grouped);

  void start(std::span<const int32_t> slot_to_expert, std::span<const WeighedLoad> loads);
  // Puts experts into slots, and weighs what that changes.
  void put(std::span<const SlotChange> changes);
  // From now on keeps the sum of powers, 8 << doublings, as well.
  void raise_to(int doublings);

  int32_t copies(const Holders& holders, int32_t gpu, int32_t expert) const {
    int32_t count = 0;
    holders.for_each(expert, [&](int32_t slot) { count += gpu_of[slot] == gpu; });
    return count;
  }
  bool holds(int32_t gpu, int32_t expert) const { return copies(now, gpu, expert) > 0; }
  bool down(int32_t gpu) const { return inverse_speed[gpu] == 0; }
  bool open(int32_t gpu) const { return !down(gpu) && !closed[gpu]; }
  // A replica that can go: another GPU holds its expert, and its own GPU not twice.
  bool spare(int32_t slot) const {
    const int32_t old = row[slot];
    return old != kNoExpert && replicas[old] > 1 && (!twice || copies(now, gpu_of[slot], old) == 1);
  }
  bool group_may_lie_on(int32_t expert, int32_t gpu) const {
    return !grouped || group_may_lie_on_node(expert / topology.experts_per_group(), gpu);
  }
  int32_t move_cost(int32_t slot, int32_t expert) const {
    return (copies(base, gpu_of[slot], expert) == 0) - arrived[slot];
  }
  std::span<const int32_t> row_of(int32_t gpu) const {
    return std::span(row).subspan(static_cast<size_t>(gpu) * width, width);
  }
  float power(float x) const {
    x *= x;
    x *= x;
    x *= x;
    return doublings == 0 ? x : x * x;
  }

  // The layer under one load. Loads are in mean GPU loads, divided by speed where of a GPU.
  struct Scenario {
    float weight = 0;
    std::vector<float> expert_load;  // [experts]
    std::vector<float> gained;       // [experts, padded] by a replica, were there one more
    std::vector<float> share;        // [slots] of the replica there
    std::vector<float> gpu_load;     // [gpus, padded]
    std::vector<float> rest;         // [slots, padded] of the slot's GPU without it
  };

  const Topology& topology;
  const bool grouped;
  const int32_t experts;
  const int32_t width;               // slots of a GPU
  const bool twice;                  // an expert may lie on a GPU twice
  std::vector<float> inverse_speed;  // [gpus, padded] 0: down
  std::vector<float> slot_speed;     // [slots, padded] inverse, of the slot's GPU
  std::vector<float> live;           // [gpus, padded] 1; 0: down
  std::vector<char> closed;          // [gpus] takes nothing in
  std::vector<int32_t> gpu_of;       // [slots]
  double live_gpus = 0;
  double total_speed = 0;

  std::vector<int32_t> row;         // [slots] now
  std::vector<int32_t> base_row;    // [slots] as given
  Holders now, base;                // of those
  std::vector<int32_t> replicas;    // [experts]
  std::vector<int32_t> replicated;  // experts with more than one
  std::vector<char> arrived;        // [slots] its GPU did not hold its expert
  std::vector<int32_t> arrivals;    // [gpus] such slots
  std::vector<float> spare_mask;    // [slots, padded] 0: spare, on an open GPU; else kNever
  std::vector<Scenario> scenarios;
  double mean = 0;  // load of a GPU under the first load, in tokens

  // Since raise_to(). What is lowered is the sum over GPUs of
  //   powers[gpu] = sum over scenarios of weight x gpu_load^p,  p = 8 << doublings.
  // With n replicas and a share of s each, one replica more lets the others fall by s x fall,
  // fall = 1 / (n + 1); one less lets them rise by s x rise, rise = 1 / (n - 1); divided by speed.
  // fallen and risen are what that changes the powers of the slot's GPU by; relief and burden sum
  // them over the expert's slots. So with one scenario and p = 8, of an expert of load 0.6 with two
  // replicas, on GPUs of load 1.0 and 0.9: another replica takes 0.1 from each, fallen is 1.0^8 -
  // 0.9^8 = 0.57 on the one and 0.9^8 - 0.8^8 = 0.26 on the other, relief 0.83. On a GPU of load
  // 0.7 the new one, of 0.2, adds 0.9^8 - 0.7^8 = 0.37: the sum falls by 0.46, by one move.
  int doublings = 0;
  std::vector<float> powers;          // [gpus, padded]
  std::vector<float> fall, rise;      // [slots]
  std::vector<float> fallen, risen;   // [slots]
  std::vector<float> relief, burden;  // [experts, padded]
  // [slots, padded] powers of the slot's GPU, less what others rise by where the slot's replica
  // goes: what an expert in its place may add for nothing to be lost.
  std::vector<float> room;

 private:
  bool group_may_lie_on_node(int32_t group, int32_t gpu) const;
  void count_replicas();
  int32_t& on_node(int32_t expert, int32_t gpu);
  void take_load(Scenario& scenario, const WeighedLoad& load);
  void put(int32_t slot, int32_t expert);
  void share_out(int32_t expert);
  void weigh_touched();
  void weigh(int32_t gpu);
  void weigh_changes(int32_t gpu);
  void weigh_experts();
  void weigh_replicas(int32_t expert);

  std::vector<int32_t> on_node_;  // [groups, nodes] slots of a group on a node
  std::vector<int32_t> spread_;   // [groups] nodes it lay on
  bool raised_ = false;
  OnceList changed_;  // experts
  OnceList touched_;  // GPUs to weigh again
  OnceList weighed_;  // experts
  std::vector<SlotScenario> slot_scenarios_;
};

}  // namespace eplbd
