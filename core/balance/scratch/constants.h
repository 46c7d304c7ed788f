// What the search of `joint` was set to, in one place. What halving and doubling each of them does
// to the mean peak, to the worst layer and to the time, on a few layers from 8 GPUs to 144:
//   bench_solver --sweep all|NAME [--seed N]
// The figures below are from it, with seed 1; where none are given, the mean of no shape moved by
// 1e-5. But for 16 and 96 GPUs of 3 slots, which end farthest from their bound: there any other
// course of the search ends elsewhere, by up to 6e-4 in the mean and 4e-3 in a layer. And under
// Zipf a few layers take most of the time, so that it may double or halve by chance.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace eplbd {

struct SearchConstants {
  // How near to its bound a region counts as there, as a part of it: with up to 16 GPUs of 9 slots;
  // for others see tolerance_of(), between `finest` and `coarsest`. It must be below what `evolved`
  // comes to on the same shape: 2.5e-5 in the mean with 9 slots, 2.4e-6 with 16. `nine_slots`
  // halved: 8 GPUs of 5 slots 4e-5 lower, in 1.4 times as long; doubled: 9e-5 higher, in a quarter.
  // `coarsest` halved: 64 GPUs 2e-4 lower, in 1.7 times as long; doubled: 3e-4 higher, in 0.8.
  double nine_slots = 2.2e-5;
  double finest = 2e-6;
  double coarsest = 4e-4;
  // So much farther off a region is left as it is. Doubled: 8 GPUs of 5 slots 1e-5 higher.
  double settled = 3e-5;
  // Random changes before a region is left that stays farther off: so many by what one costs, that
  // is slots times ways. Halved: 8 GPUs of 5 slots 4e-5 higher, 96 GPUs 5e-4, in half the time;
  // doubled: 4e-5 and 5e-4 lower, in 1.5 to 2 times as long.
  double attempts_by_cost = 2e7;
  int32_t least_attempts = 8;
  // These are shared out among so many starts where another is cheap: up to `few_gpus`. From one
  // start alone: 16 GPUs of 3 slots 2e-4 higher, a layer 4e-3. Nearer than `near` to its bound a
  // start is kept: without that, 8 GPUs of 9 slots end as low in twice the time under Zipf.
  int32_t starts = 5;
  int32_t few_gpus = 16;
  double near = 1e-3;
  // A descent so far above its target takes single exchanges and replacements before fine ones, and
  // looks first whether a bound is in the way. Halved and doubled: 1e-5 either way.
  double far = 3e-2;
  // A step need not be the best there is, if no more than this part of the way is left then.
  // Halved: 8 GPUs of 5 slots 3e-5 lower; doubled: 64 GPUs as low, in 0.8 of the time.
  double left_of_the_way = 0.3;
  // Exchanges are tried of up to so many slots, where a GPU has at most so many ways to choose
  // them: the more there are, the sooner one of them fits. Two slots: 8 GPUs of 9 slots end 1e-5
  // higher.
  int32_t most_slots = 4;
  int32_t most_subsets = 600;
  // Two slots a GPU: moves of spare replicas between experts. Halved: 144 GPUs 4e-4 higher, a layer
  // 5e-3, in 0.6 of the time; doubled: 1e-5 lower, in twice the time.
  int32_t count_moves = 16000;
  // Groups on nodes: packings that are filled, best first, where a node has too many placements to
  // try them all. All packings: 64 GPUs of 3 slots up to 4e-3 lower, in up to 26 times as long.
  int32_t most_packings = 4;
};

}  // namespace eplbd
