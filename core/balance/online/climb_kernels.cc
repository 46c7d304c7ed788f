// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/climb_kernels.h"

#include <algorithm>
#include <cstring>

namespace eplbd {
namespace {

// Registers of four and of eight: everything below is compiled for both, and inlined into the
// functions that say for which processor.
struct Four {
  using Floats [[gnu::vector_size(16)]] = float;
  using Ints [[gnu::vector_size(16)]] = int32_t;
};
struct Eight {
  using Floats [[gnu::vector_size(32)]] = float;
  using Ints [[gnu::vector_size(32)]] = int32_t;
};

template <typename Vector>
[[gnu::always_inline]] inline void load(Vector& to, const void* from) {
  std::memcpy(&to, from, sizeof to);
}

template <typename Vector>
[[gnu::always_inline]] inline bool any(const Vector& mask) {
  uint64_t words[sizeof(Vector) / sizeof(uint64_t)];
  std::memcpy(words, &mask, sizeof words);
  uint64_t all = 0;
  for (const uint64_t word : words) all |= word;
  return all != 0;
}

template <typename Vector>
[[gnu::always_inline]] inline void raise(Vector& x, int doublings) {
  x *= x;
  x *= x;
  x *= x;
  if (doublings > 0) x *= x;
}

template <typename Width>
[[gnu::always_inline]] inline void exchanges(std::span<const ExchangeLane> lanes,
                                             const ExchangeBlock& block, int doublings,
                                             int32_t first, float* worth, int32_t* which) {
  using Floats = typename Width::Floats;
  using Ints = typename Width::Ints;
  for (size_t column = 0; column < kBlock; column += sizeof(Floats) / sizeof(float)) {
    Floats before, my_allowed, my_halved, best;
    Ints found;
    load(before, block.before + column);
    load(my_allowed, block.my_allowed + column);
    load(my_halved, block.my_halved + column);
    load(best, worth + column);
    load(found, which + column);
    for (int32_t slot = 0; slot < block.width; ++slot) {
      const size_t at = static_cast<size_t>(slot) * kBlock + column;
      Floats gain = before;
      for (const ExchangeLane& lane : lanes) {
        Floats mine, theirs, added;
        load(mine, lane.gained + at);
        load(theirs, lane.others + at);
        load(added, lane.added + column);
        mine += lane.rest;
        theirs += added;
        raise(mine, doublings);
        raise(theirs, doublings);
        gain -= lane.weight * (mine + theirs);
      }
      Floats allowed, halved;
      load(allowed, block.allowed + at);
      load(halved, block.halved + at);
      gain *= allowed * my_allowed - halved * my_halved;
      const Ints better = gain > best;
      best = better ? gain : best;
      found = better ? Ints{} + (first + slot) : found;
    }
    std::memcpy(worth + column, &best, sizeof best);
    std::memcpy(which + column, &found, sizeof found);
  }
}

template <typename Width>
[[gnu::always_inline]] inline void bounds_of(std::span<const BoundLane> lanes, const float* powers,
                                             const float* half, float mine, int doublings,
                                             std::span<float> bounds) {
  using Floats = typename Width::Floats;
  constexpr float kRounding = 4e-6F;
  for (size_t gpu = 0; gpu < bounds.size(); gpu += sizeof(Floats) / sizeof(float)) {
    Floats theirs, halves;
    load(theirs, powers + gpu);
    load(halves, half + gpu);
    Floats bound = (1 + kRounding) * (theirs + mine);
    for (const BoundLane& lane : lanes) {
      Floats middle;
      load(middle, lane.load + gpu);
      middle = (middle + lane.mine) * halves;
      raise(middle, doublings);
      bound -= 2 * lane.weight * middle;
    }
    std::memcpy(&bounds[gpu], &bound, sizeof bound);
  }
}

template <typename Width>
[[gnu::always_inline]] inline Found turnovers(std::span<const TurnoverLane> lanes,
                                              std::span<const float> own,
                                              std::span<const float> mask, float empty,
                                              int doublings, float least) {
  using Floats = typename Width::Floats;
  using Ints = typename Width::Ints;
  constexpr size_t kWidth = sizeof(Floats) / sizeof(float);
  Floats best = Floats{} + least;
  Ints found = Ints{} - 1;
  for (size_t i = 0; i < own.size(); i += kWidth) {
    Floats worth, masked;
    load(worth, &own[i]);
    load(masked, &mask[i]);
    worth += masked;
    const Ints promising = worth - empty > best;
    if (!any(promising)) continue;
    for (const TurnoverLane& lane : lanes) {
      Floats gained, after = Floats{} + lane.base;
      load(gained, lane.gained + i);
      if (lane.bases) load(after, lane.bases + i);
      after += lane.scale * gained;
      raise(after, doublings);
      worth -= lane.weight * after;
    }
    const Ints better = worth > best;
    best = better ? worth : best;
    found = better ? Ints{} + static_cast<int32_t>(i) : found;
  }
  Found result{-1, least};
  for (size_t i = 0; i < kWidth; ++i) {
    const int32_t index = found[i] + static_cast<int32_t>(i);
    if (found[i] < 0 || best[i] < result.worth) continue;
    if (best[i] > result.worth || index < result.index) result = {index, best[i]};
  }
  return result;
}

// Left to the compiler, as a GPU's slots fill no whole registers.
[[gnu::always_inline]] inline void changes_of(std::span<const SlotLane> lanes, float powers,
                                              std::span<const float> fall,
                                              std::span<const float> rise, int doublings,
                                              float* __restrict fallen, float* __restrict risen) {
  const size_t count = fall.size();
  for (size_t i = 0; i < count; ++i) fallen[i] = powers;
  for (size_t i = 0; i < count; ++i) risen[i] = -powers;
  for (const SlotLane& lane : lanes) {
    for (size_t i = 0; i < count; ++i) {
      float less = lane.load - lane.share[i] * fall[i];
      float more = lane.load + lane.share[i] * rise[i];
      raise(less, doublings);
      raise(more, doublings);
      fallen[i] -= lane.weight * less;
      risen[i] += lane.weight * more;
    }
  }
}

// exp(x) = 2^n exp(r), x = n ln 2 + r with ln 2 in two parts, the first of few bits, so that r is
// exact (Cody and Waite 1980). n is the nearest whole number to x / ln 2: added to 1.5 x 2^23 no
// bits behind the point are left. exp(r), |r| <= ln 2 / 2, by the first seven terms of its series:
// right to 1e-6. The powers of two go straight into the exponent's bits.
template <typename Width>
[[gnu::always_inline]] inline double exponentials(std::span<const float> loads,
                                                  std::span<const float> live, float peak,
                                                  float sharpness) {
  using Floats = typename Width::Floats;
  using Ints = typename Width::Ints;
  constexpr float kShifter = 12582912;
  float sums[kBlock] = {};
  for (size_t gpu = 0; gpu < loads.size(); gpu += kBlock) {
    for (size_t column = 0; column < kBlock; column += sizeof(Floats) / sizeof(float)) {
      Floats x, alive, sum;
      load(x, &loads[gpu + column]);
      load(alive, &live[gpu + column]);
      load(sum, sums + column);
      x = sharpness * (x - peak);
      const Floats least = Floats{} - 80;
      x = x < least ? least : x;
      const Floats shifted = x * 1.44269504F + kShifter;
      const Floats whole = shifted - kShifter;
      const Floats r = (x - whole * 0.693359375F) + whole * 2.12194440e-4F;
      Floats result = r * (1.0F / 720) + 1.0F / 120;
      result = result * r + 1.0F / 24;
      result = result * r + 1.0F / 6;
      result = result * r + 0.5F;
      result = result * r + 1.0F;
      result = result * r + 1.0F;
      Ints bits, exponent;
      std::memcpy(&exponent, &shifted, sizeof exponent);
      std::memcpy(&bits, &result, sizeof bits);
      bits += exponent << 23;
      load(result, &bits);
      sum += alive * result;
      std::memcpy(sums + column, &sum, sizeof sum);
    }
  }
  double total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

#if defined(__x86_64__)
const bool avx2 = __builtin_cpu_supports("avx2");

[[gnu::target("avx2")]] void exchanges_avx2(std::span<const ExchangeLane> lanes,
                                            const ExchangeBlock& block, int doublings,
                                            int32_t first, float* worth, int32_t* which) {
  if (doublings == 0) return exchanges<Eight>(lanes, block, 0, first, worth, which);
  exchanges<Eight>(lanes, block, 1, first, worth, which);
}

[[gnu::target("avx2")]] void bounds_avx2(std::span<const BoundLane> lanes, const float* powers,
                                         const float* half, float mine, int doublings,
                                         std::span<float> bounds) {
  bounds_of<Eight>(lanes, powers, half, mine, doublings, bounds);
}

[[gnu::target("avx2")]] Found turnovers_avx2(std::span<const TurnoverLane> lanes,
                                             std::span<const float> own,
                                             std::span<const float> mask, float empty,
                                             int doublings, float least) {
  if (doublings == 0) return turnovers<Eight>(lanes, own, mask, empty, 0, least);
  return turnovers<Eight>(lanes, own, mask, empty, 1, least);
}

[[gnu::target("avx2")]] void changes_avx2(std::span<const SlotLane> lanes, float powers,
                                          std::span<const float> fall, std::span<const float> rise,
                                          int doublings, float* fallen, float* risen) {
  if (doublings == 0) return changes_of(lanes, powers, fall, rise, 0, fallen, risen);
  changes_of(lanes, powers, fall, rise, 1, fallen, risen);
}

[[gnu::target("avx2")]] double exponentials_avx2(std::span<const float> loads,
                                                 std::span<const float> live, float peak,
                                                 float sharpness) {
  return exponentials<Eight>(loads, live, peak, sharpness);
}
#endif

}  // namespace

void best_exchanges(std::span<const ExchangeLane> lanes, const ExchangeBlock& block, int doublings,
                    int32_t first, float* worth, int32_t* which) {
#if defined(__x86_64__)
  if (avx2) return exchanges_avx2(lanes, block, doublings, first, worth, which);
#endif
  exchanges<Four>(lanes, block, doublings, first, worth, which);
}

void exchange_bounds(std::span<const BoundLane> lanes, const float* powers, const float* half,
                     float mine, int doublings, std::span<float> bounds) {
#if defined(__x86_64__)
  if (avx2) return bounds_avx2(lanes, powers, half, mine, doublings, bounds);
#endif
  bounds_of<Four>(lanes, powers, half, mine, doublings, bounds);
}

Found best_turnover(std::span<const TurnoverLane> lanes, std::span<const float> own,
                    std::span<const float> mask, float empty, int doublings, float least) {
#if defined(__x86_64__)
  if (avx2) return turnovers_avx2(lanes, own, mask, empty, doublings, least);
#endif
  return turnovers<Four>(lanes, own, mask, empty, doublings, least);
}

void slot_changes(std::span<const SlotLane> lanes, float powers, std::span<const float> fall,
                  std::span<const float> rise, int doublings, float* fallen, float* risen) {
#if defined(__x86_64__)
  if (avx2) return changes_avx2(lanes, powers, fall, rise, doublings, fallen, risen);
#endif
  changes_of(lanes, powers, fall, rise, doublings, fallen, risen);
}

double sum_of_exponentials(std::span<const float> loads, std::span<const float> live, float peak,
                           float sharpness) {
#if defined(__x86_64__)
  if (avx2) return exponentials_avx2(loads, live, peak, sharpness);
#endif
  return exponentials<Four>(loads, live, peak, sharpness);
}

}  // namespace eplbd
