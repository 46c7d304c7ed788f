// The inner loops of the hill climb (see layer_climb.h), some values of a vector register at a
// time. Which register a machine has makes no difference to what comes out: everything is computed
// element by element, and sums are taken in one order.
//
// What falls and rises is the sum over GPUs of a high power of their load, weighed over scenarios
// (the layer under one load each). The power is 8 << doublings, with doublings 0 or 1.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace eplbd {

// GPUs that are tried together. Arrays over GPUs and over experts are padded to a multiple of it.
inline constexpr size_t kBlock = 8;
constexpr size_t padded(size_t count) { return (count + kBlock - 1) / kBlock * kBlock; }

// One scenario of the exchanges of one slot with every slot of a block of GPUs.
struct ExchangeScenario {
  float weight = 0;
  float rest = 0;                 // load of the slot's GPU without the slot
  const float* gained = nullptr;  // [width, kBlock] what it gains by each other slot
  const float* others = nullptr;  // [width, kBlock] load of the other GPU without that slot
  const float* added = nullptr;   // [kBlock] what the other GPU gains
};

// An exchange's worth is its gain times (allowed - halved), each of them the product of what the
// two slots say: 1 and 1/2 where it costs two moves, 1 and 0 where it costs one, 0 and 0 where it
// is not allowed.
struct ExchangeBlock {
  const float* before = nullptr;      // [kBlock] powers of the two GPUs as they are
  const float* allowed = nullptr;     // [width, kBlock]
  const float* halved = nullptr;      // [width, kBlock]
  const float* my_allowed = nullptr;  // [kBlock]
  const float* my_halved = nullptr;   // [kBlock]
  int32_t width = 0;                  // slots of a GPU
};

// For each GPU of the block the best exchange, where it is worth more than `worth` [kBlock] so far:
// `which` becomes `first` + the slot's place on its GPU.
void best_exchanges(std::span<const ExchangeScenario> scenarios, const ExchangeBlock& block,
                    int doublings, int32_t first, float* worth, int32_t* which);

// Upper bounds [gpus] for all exchanges of one GPU with each GPU, as if any load could go over.
// Requires: powers [gpus] and the scenarios' loads [gpus] padded; `half` is 1/2 for a GPU of the
// same speed, else 0.
struct BoundScenario {
  float weight = 0;
  float mine = 0;  // load of the one GPU
  const float* load = nullptr;
};
void exchange_bounds(std::span<const BoundScenario> scenarios, const float* powers,
                     const float* half, float mine, int doublings, std::span<float> bounds);

// One scenario of turnovers: GPU loads are base + scale x gained afterwards.
struct TurnoverScenario {
  float weight = 0;
  float base = 0;
  float scale = 0;
  const float* bases = nullptr;   // [count] instead of `base`, or null
  const float* gained = nullptr;  // [count]
};

// What a mask adds where something is not allowed.
inline constexpr float kNever = -1e30F;

struct Found {
  int32_t index = -1;
  float worth = 0;
};

// The largest own + mask - (weighed powers), if above `least`; the first of equals. The weighed
// powers are nowhere less than `empty`.
// Requires: own, mask and what scenarios point to padded, the padding of `mask` far below zero.
Found best_turnover(std::span<const TurnoverScenario> scenarios, std::span<const float> own,
                    std::span<const float> mask, float empty, int doublings, float least);

// Of the slots of one GPU: how far its powers fall when load x fall goes, and how far they rise
// when load x rise comes. All [width].
struct SlotScenario {
  float weight = 0;
  float load = 0;  // of the GPU
  const float* share = nullptr;
};
void slot_changes(std::span<const SlotScenario> scenarios, float powers,
                  std::span<const float> fall, std::span<const float> rise, int doublings,
                  float* fallen, float* risen);

// Sum over GPUs of live x exp(sharpness x (load - peak)). Requires: padded, load <= peak.
double sum_of_exponentials(std::span<const float> load, std::span<const float> live, float peak,
                           float sharpness);

}  // namespace eplbd
