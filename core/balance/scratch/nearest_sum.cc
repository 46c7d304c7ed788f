// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/nearest_sum.h"

#include <algorithm>

#include "core/model/vector_kernel.h"

namespace eplbd {
namespace {

struct Scan {
  static constexpr size_t kMostLanes = kSumLanes;
  template <typename Registers>
  [[gnu::always_inline]] static int32_t run(std::span<const int32_t> ours,
                                            std::span<const int32_t> theirs, int32_t wanted,
                                            std::span<int32_t> distances) {
    using Ints = typename Registers::Ints;
    Ints nearest = Ints{} + kNoSum;
    for (size_t i = 0; i < ours.size(); i += Registers::kLanes) {
      Ints mine;
      load(mine, &ours[i]);
      mine -= wanted;
      Ints least = Ints{} + kNoSum;
      for (const int32_t sum : theirs) {
        Ints distance = mine - sum;
        distance = distance < 0 ? -distance : distance;
        least = distance < least ? distance : least;
      }
      store(&distances[i], least);
      nearest = least < nearest ? least : nearest;
    }
    int32_t result = kNoSum;
    for (size_t lane = 0; lane < Registers::kLanes; ++lane) {
      result = std::min(result, nearest[lane]);
    }
    return result;
  }
};

}  // namespace

int32_t nearest_sums(std::span<const int32_t> ours, std::span<const int32_t> theirs, int32_t wanted,
                     std::span<int32_t> distances) {
  return run_widest<Scan>(ours, theirs, wanted, distances);
}

}  // namespace eplbd
