// The search engine: one region of one layer (the experts that may lie there, its GPUs) as flat
// arrays, and the neighbourhoods which lower the load of its fullest GPU. Replication and packing
// are searched together: an exchange packs, a replacement turns a spare replica into another's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/balance/random.h"
#include "core/balance/scratch/pair_sums.h"

namespace eplbd {

// A placement of one region, by which a search starts, stands and goes back.
struct RegionState {
  std::vector<int32_t> count;      // [experts] replicas
  std::vector<double> share;       // [experts] tokens of one replica
  std::vector<uint64_t> holders;   // [experts, words] GPUs as bits
  std::vector<double> tokens;      // [gpus]
  std::vector<int32_t> expert_at;  // [gpus, slots_per_gpu]
};

class LayerSearch {
 public:
  // For so many, or fewer, more thorough ways are cheap enough.
  static constexpr int32_t kFewGpus = 16;

  // Experts and GPUs are numbered from 0 within the region. `speeds` [gpus], all above 0.
  // Requires: slots_per_gpu <= weights.size() <= slots_per_gpu * speeds.size().
  void reset(std::span<const double> weights, std::span<const double> speeds,
             int32_t slots_per_gpu);

  // A first placement: spare replicas by water-filling, then the heaviest to the lightest GPU. So
  // many replicas fewer of the hottest experts go to light ones; false, where one of those left
  // would carry more than `most`.
  bool construct(int32_t fewer, double most);

  // A first placement whose counts random changes have made better, so many or until the peak is at
  // most `target`. Requires: two slots a GPU, all GPUs as fast.
  void construct_pairs(double target, int32_t attempts, Random& random);

  // Or takes one as it is. Requires: valid, no expert twice on a GPU.
  void load(std::span<const int32_t> expert_at);

  // Lowers the peak until it is at most `target` or no neighbour is better.
  void descend(double target);

  // Exchanges slots until every GPU is at most at `target` (tokens / speed); false, and nothing
  // changes, when it finds no way. For few GPUs, and a target just above what is even. `quantum`:
  // what all weights are multiples of, where that counts next to the distance (0: it does not);
  // then the target is raised to what whole quanta can reach.
  bool even_out(double target, double quantum, Random& random);

  // One attempt to leave a local optimum: a few random changes around the fullest GPU, then
  // descend(). Keeps the outcome unless the peak rose.
  void attempt(double target, Random& random);

  // And one that evens out what descend() leaves. True: the peak fell, to the target.
  bool attempt_exact(double target, double quantum, Random& random);

  // A cheap attempt, for a peak just above the target: other slots of the same weight change
  // places first. Never raises the peak.
  void attempt_nearby(double target, Random& random);

  // Many random changes: another start.
  void scatter(Random& random);

  double peak() const;  // tokens / speed of the fullest GPU
  std::span<const int32_t> expert_at() const { return state_.expert_at; }
  const std::vector<int32_t>& counts() const { return state_.count; }

 private:
  static constexpr double kProgress = 1 - 1e-10;  // a change lowers the peak by more than rounding
  static constexpr int32_t kMaxSubset = 4;
  static constexpr int32_t kKinds = 3;  // of subsets: one slot, and the two largest
  struct Subset {
    int32_t size = 0;
    std::array<int16_t, kMaxSubset> slots{};  // within the GPU
  };
  // Sums of all subsets of one GPU, in fixed point; kept until the GPU changes.
  struct SumList {
    std::vector<int32_t> sums;
    bool fresh = false;
  };
  struct Exchange {
    double peak = 0;   // of the two GPUs, afterwards
    int32_t gpu = -1;  // the other one
    Subset ours, theirs;
  };
  struct Replacement {
    double peak = 0;  // of the GPUs that change, afterwards
    int32_t slot = -1;
    int32_t expert = -1;
  };

  // layer_even.cc: items are the replicas, named by the slots where they lay at first.
  struct Evening {
    std::vector<int32_t> weight, slot_of;  // [items] weights in fixed point
    std::vector<int32_t> item_at;          // [slots]
    std::vector<uint8_t> open;             // [gpus]
    std::vector<double> fraction;          // [slots] of a quantum, above whole ones
    std::vector<int32_t> fractional;       // slots with one
    std::vector<double> unused;            // [gpus] quanta
    std::vector<int16_t> paired;           // items
    // By the bit width of how many others are open, and whether they are listed.
    std::array<std::pair<PairSums, bool>, 32> pairs;
    double target = 0;
    double quantum = 0;
    int32_t lookups = 0;  // left
  };
  double excess(int32_t gpu) const;
  // layer_whole.cc
  double unused(int32_t gpu) const;
  double open_room() const;
  void settle_fractions(Random& random);
  int32_t list_fractions();
  bool exchange_fractions();
  void displace_fraction(Random& random);
  void exchange_fraction(int32_t slot, int32_t other);

  bool even_rest(int32_t open);
  bool even_pair(int32_t gpu, int32_t other);
  void list_pairs(int32_t open, PairSums& pairs);
  template <typename Rest>
  bool give_one(int32_t gpu, int32_t least, int32_t most, Rest rest);
  template <typename Rest>
  bool give_two(int32_t gpu, int32_t least, int32_t most, const PairSums& pairs, Rest rest);
  template <typename Rest>
  bool give_three(int32_t gpu, int32_t least, int32_t most, const PairSums& pairs, Rest rest);
  bool on_open(int32_t item) const;
  bool may_exchange_items(int32_t gpu, std::span<int32_t> ours, std::span<int32_t> theirs) const;
  void exchange_items(int32_t item, int32_t other);

  bool holds(int32_t gpu, int32_t expert) const {
    return (state_.holders[expert * words_ + (gpu >> 6)] >> (gpu & 63)) & 1;
  }
  void flip(int32_t gpu, int32_t expert) {
    state_.holders[expert * words_ + (gpu >> 6)] ^= uint64_t{1} << (gpu & 63);
  }
  template <typename Visit>
  void for_each_holder(int32_t expert, Visit visit) const;
  double time(int32_t gpu) const { return state_.tokens[gpu] * inverse_speed_[gpu]; }
  int32_t slot_of(int32_t gpu, int32_t expert) const;

  void fill_water();
  bool pass_replica_on(double most);
  // layer_pairs.cc
  double move_replicas(int32_t moves, double best, Random& random);
  void list_shares();
  void recount_in_order(int32_t expert, int32_t by);
  double fullest_pair() const;

  void sort_experts();
  void place_in_order();
  int32_t lightest_with_room(int32_t expert) const;
  int32_t make_room(int32_t expert);
  void put(int32_t gpu, int32_t expert);
  void finish_start();

  int32_t fullest() const;
  // layer_exchange.cc
  bool exchange_one(int32_t gpu, double target);
  int32_t holder_with_room(int32_t expert, int32_t instead, double given, double enough) const;
  double most_of_the_way(int32_t gpu, double target) const;
  bool exchange(int32_t gpu, int32_t kind, double target);
  void find_exchange(int32_t gpu, int32_t other, int32_t kind, Exchange& best);
  bool may_exchange(int32_t gpu, int32_t other, const Subset& ours, const Subset& theirs) const;
  void list_subsets();
  const std::vector<int32_t>& sums(int32_t gpu, int32_t kind);
  double tokens_in(int32_t gpu, const Subset& subset) const;
  bool replace(int32_t gpu);
  void find_replacement_on(int32_t gpu, int32_t expert, double others, Replacement& best) const;
  void find_replacement_for(int32_t gpu, int32_t other, int32_t expert, Replacement& best) const;
  void exchange_slots(int32_t gpu, int32_t other, const Subset& ours, const Subset& theirs);
  void swap_slots(int32_t slot, int32_t other);
  void shuffle(Random& random);
  void replace_at(int32_t slot, int32_t expert);
  void touch(int32_t gpu);
  void refresh_tokens();
  void keep_unless_above(double peak_before);
  void go_back();  // to saved_
  void kick(int32_t gpu, Random& random);
  void kick_some(Random& random);

  int32_t experts_ = 0, gpus_ = 0, slots_per_gpu_ = 0;
  size_t words_ = 0;
  std::vector<double> weight_;                 // [experts]
  std::vector<double> speed_, inverse_speed_;  // [gpus]
  double scale_ = 0;                           // tokens to fixed point
  RegionState state_, saved_;
  // While constructing: [gpus] slots filled; inverse_speed_, infinite where all are.
  std::vector<int32_t> filled_;
  std::vector<double> open_inverse_speed_;
  std::vector<int32_t> order_, above_;                 // experts; order_: heaviest replicas first,
  bool ordered_ = false;                               // unless counts have changed
  std::vector<float> shares_;                          // [experts]
  std::vector<double> shares_in_order_, kept_shares_;  // [slots] heaviest first
  int32_t kinds_ = 0;
  std::array<std::vector<Subset>, kKinds> subsets_;
  std::array<std::vector<SumList>, kKinds> lists_;  // [kind][gpus]
  std::vector<int32_t> distances_, slot_weights_;
  Evening evening_;
};

}  // namespace eplbd
