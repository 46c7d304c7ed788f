// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/climb_kernels.h"

#include <cstring>
#include <utility>

#include "core/model/vector_kernel.h"

namespace eplbd {
namespace {

template <typename Vector>
[[gnu::always_inline]] inline bool any(const Vector& mask) {
  uint64_t words[sizeof(Vector) / sizeof(uint64_t)];
  std::memcpy(words, &mask, sizeof words);
  uint64_t all = 0;
  for (const uint64_t word : words) all |= word;
  return all != 0;
}

template <int kDoublings, typename Number>
[[gnu::always_inline]] inline void raise(Number& x) {
  for (int i = 0; i < 3 + kDoublings; ++i) x *= x;
}

template <int kDoublings>
struct Exchanges {
  static constexpr size_t kMostLanes = kBlock;
  template <typename Registers>
  [[gnu::always_inline]] static void run(std::span<const ExchangeScenario> scenarios,
                                         const ExchangeBlock& block, int32_t first, float* worth,
                                         int32_t* which) {
    using Floats = typename Registers::Floats;
    using Ints = typename Registers::Ints;
    for (size_t column = 0; column < kBlock; column += Registers::kLanes) {
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
        for (const ExchangeScenario& scenario : scenarios) {
          Floats mine, theirs, added;
          load(mine, scenario.gained + at);
          load(theirs, scenario.others + at);
          load(added, scenario.added + column);
          mine += scenario.rest;
          theirs += added;
          raise<kDoublings>(mine);
          raise<kDoublings>(theirs);
          gain -= scenario.weight * (mine + theirs);
        }
        Floats allowed, halved;
        load(allowed, block.allowed + at);
        load(halved, block.halved + at);
        gain *= allowed * my_allowed - halved * my_halved;
        const Ints better = gain > best;
        best = better ? gain : best;
        found = better ? Ints{} + (first + slot) : found;
      }
      store(worth + column, best);
      store(which + column, found);
    }
  }
};

template <int kDoublings>
struct Bounds {
  static constexpr size_t kMostLanes = kBlock;
  template <typename Registers>
  [[gnu::always_inline]] static void run(std::span<const BoundScenario> scenarios,
                                         const float* powers, const float* half, float mine,
                                         std::span<float> bounds) {
    using Floats = typename Registers::Floats;
    constexpr float kRounding = 4e-6F;
    for (size_t gpu = 0; gpu < bounds.size(); gpu += Registers::kLanes) {
      Floats theirs, halves;
      load(theirs, powers + gpu);
      load(halves, half + gpu);
      Floats bound = (1 + kRounding) * (theirs + mine);
      for (const BoundScenario& scenario : scenarios) {
        Floats middle;
        load(middle, scenario.load + gpu);
        middle = (middle + scenario.mine) * halves;
        raise<kDoublings>(middle);
        bound -= 2 * scenario.weight * middle;
      }
      store(&bounds[gpu], bound);
    }
  }
};

template <int kDoublings>
struct Turnovers {
  static constexpr size_t kMostLanes = kBlock;
  template <typename Registers>
  [[gnu::always_inline]] static Found run(std::span<const TurnoverScenario> scenarios,
                                          std::span<const float> own, std::span<const float> mask,
                                          float empty, float least) {
    using Floats = typename Registers::Floats;
    using Ints = typename Registers::Ints;
    Floats best = Floats{} + least;
    Ints found = Ints{} - 1;
    for (size_t i = 0; i < own.size(); i += Registers::kLanes) {
      Floats worth, masked;
      load(worth, &own[i]);
      load(masked, &mask[i]);
      worth += masked;
      const Ints promising = worth - empty > best;
      if (!any(promising)) continue;
      for (const TurnoverScenario& scenario : scenarios) {
        Floats gained, after = Floats{} + scenario.base;
        load(gained, scenario.gained + i);
        if (scenario.bases) load(after, scenario.bases + i);
        after += scenario.scale * gained;
        raise<kDoublings>(after);
        worth -= scenario.weight * after;
      }
      const Ints better = worth > best;
      best = better ? worth : best;
      found = better ? Ints{} + static_cast<int32_t>(i) : found;
    }
    Found result{-1, least};
    for (size_t i = 0; i < Registers::kLanes; ++i) {
      const int32_t index = found[i] + static_cast<int32_t>(i);
      if (found[i] < 0 || best[i] < result.worth) continue;
      if (best[i] > result.worth || index < result.index) result = {index, best[i]};
    }
    return result;
  }
};

// Left to the compiler, as a GPU's slots fill no whole registers.
template <int kDoublings>
struct Changes {
  static constexpr size_t kMostLanes = kBlock;
  template <typename Registers>
  [[gnu::always_inline]] static void run(std::span<const SlotScenario> scenarios, float powers,
                                         std::span<const float> fall, std::span<const float> rise,
                                         float* __restrict fallen, float* __restrict risen) {
    const size_t count = fall.size();
    for (size_t i = 0; i < count; ++i) fallen[i] = powers;
    for (size_t i = 0; i < count; ++i) risen[i] = -powers;
    for (const SlotScenario& scenario : scenarios) {
      for (size_t i = 0; i < count; ++i) {
        float less = scenario.load - scenario.share[i] * fall[i];
        float more = scenario.load + scenario.share[i] * rise[i];
        raise<kDoublings>(less);
        raise<kDoublings>(more);
        fallen[i] -= scenario.weight * less;
        risen[i] += scenario.weight * more;
      }
    }
  }
};

// exp(x) = 2^n exp(r), x = n ln 2 + r with ln 2 in two parts, the first of few bits, so that r is
// exact (Cody and Waite 1980). n is the nearest whole number to x / ln 2: added to 1.5 x 2^23 no
// bits behind the point are left. exp(r), |r| <= ln 2 / 2, by the first seven terms of its series:
// right to 1e-6. The powers of two go straight into the exponent's bits.
struct Exponentials {
  static constexpr size_t kMostLanes = kBlock;
  template <typename Registers>
  [[gnu::always_inline]] static double run(std::span<const float> loads,
                                           std::span<const float> live, float peak,
                                           float sharpness) {
    using Floats = typename Registers::Floats;
    using Ints = typename Registers::Ints;
    constexpr float kShifter = 12582912;
    float sums[kBlock] = {};
    for (size_t gpu = 0; gpu < loads.size(); gpu += kBlock) {
      for (size_t column = 0; column < kBlock; column += Registers::kLanes) {
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
        store(sums + column, sum);
      }
    }
    double total = 0;
    for (const float sum : sums) total += sum;
    return total;
  }
};

// A power is known when the kernel is compiled: nothing is asked in its loops.
template <template <int> typename Kernel, typename... Arguments>
auto run_widest(int doublings, Arguments&&... arguments) {
  if (doublings == 0) return run_widest<Kernel<0>>(std::forward<Arguments>(arguments)...);
  return run_widest<Kernel<1>>(std::forward<Arguments>(arguments)...);
}

}  // namespace

void best_exchanges(std::span<const ExchangeScenario> scenarios, const ExchangeBlock& block,
                    int doublings, int32_t first, float* worth, int32_t* which) {
  run_widest<Exchanges>(doublings, scenarios, block, first, worth, which);
}

void exchange_bounds(std::span<const BoundScenario> scenarios, const float* powers,
                     const float* half, float mine, int doublings, std::span<float> bounds) {
  run_widest<Bounds>(doublings, scenarios, powers, half, mine, bounds);
}

Found best_turnover(std::span<const TurnoverScenario> scenarios, std::span<const float> own,
                    std::span<const float> mask, float empty, int doublings, float least) {
  return run_widest<Turnovers>(doublings, scenarios, own, mask, empty, least);
}

void slot_changes(std::span<const SlotScenario> scenarios, float powers,
                  std::span<const float> fall, std::span<const float> rise, int doublings,
                  float* fallen, float* risen) {
  run_widest<Changes>(doublings, scenarios, powers, fall, rise, fallen, risen);
}

double sum_of_exponentials(std::span<const float> loads, std::span<const float> live, float peak,
                           float sharpness) {
  return run_widest<Exponentials>(loads, live, peak, sharpness);
}

}  // namespace eplbd
