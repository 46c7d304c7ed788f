// The inner loop of the search: of many pairs of sums, which differ by nearly what is wanted.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace eplbd {

// Lists of our sums are padded to a multiple of this with kNoSum, which is near to nothing.
inline constexpr size_t kSumLanes = 16;
inline constexpr int32_t kNoSum = int32_t{1} << 30;

// For each of ours the least |ours - theirs - wanted| over all of theirs; returns the least of
// these. All pairs are looked at: without a branch that is faster than sorting. Requires:
// ours.size() a multiple of kSumLanes; magnitudes below 2^29 but for kNoSum; distances.size() ==
// ours.size().
int32_t nearest_sums(std::span<const int32_t> ours, std::span<const int32_t> theirs, int32_t wanted,
                     std::span<int32_t> distances);

}  // namespace eplbd
