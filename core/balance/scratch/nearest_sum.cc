// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/nearest_sum.h"

#include <algorithm>
#include <cstring>

namespace eplbd {
namespace {

using Lanes4 [[gnu::vector_size(16)]] = int32_t;
using Lanes8 [[gnu::vector_size(32)]] = int32_t;
using Lanes16 [[gnu::vector_size(64)]] = int32_t;

// Compiled once for each kind of processor: inlined, it gets that version's instructions.
template <typename Lanes>
[[gnu::always_inline]] inline int32_t scan(std::span<const int32_t> ours,
                                           std::span<const int32_t> theirs, int32_t wanted,
                                           std::span<int32_t> distances) {
  constexpr size_t kLanes = sizeof(Lanes) / sizeof(int32_t);
  Lanes nearest = Lanes{} + kNoSum;
  for (size_t i = 0; i < ours.size(); i += kLanes) {
    Lanes mine;
    std::memcpy(&mine, &ours[i], sizeof(mine));
    mine -= wanted;
    Lanes least = Lanes{} + kNoSum;
    for (const int32_t sum : theirs) {
      Lanes distance = mine - sum;
      distance = distance < 0 ? -distance : distance;
      least = distance < least ? distance : least;
    }
    std::memcpy(&distances[i], &least, sizeof(least));
    nearest = least < nearest ? least : nearest;
  }
  int32_t result = kNoSum;
  for (size_t lane = 0; lane < kLanes; ++lane) result = std::min(result, nearest[lane]);
  return result;
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] int32_t scan_avx2(std::span<const int32_t> ours,
                                          std::span<const int32_t> theirs, int32_t wanted,
                                          std::span<int32_t> distances) {
  return scan<Lanes8>(ours, theirs, wanted, distances);
}

[[gnu::target("avx512f")]] int32_t scan_avx512(std::span<const int32_t> ours,
                                               std::span<const int32_t> theirs, int32_t wanted,
                                               std::span<int32_t> distances) {
  return scan<Lanes16>(ours, theirs, wanted, distances);
}
#endif

}  // namespace

int32_t nearest_sums(std::span<const int32_t> ours, std::span<const int32_t> theirs, int32_t wanted,
                     std::span<int32_t> distances) {
#if defined(__x86_64__)
  static const bool avx512 = __builtin_cpu_supports("avx512f");
  if (avx512) return scan_avx512(ours, theirs, wanted, distances);
  static const bool avx2 = __builtin_cpu_supports("avx2");
  if (avx2) return scan_avx2(ours, theirs, wanted, distances);
#endif
  return scan<Lanes4>(ours, theirs, wanted, distances);
}

}  // namespace eplbd
