// What the search of `joint` was set to, in one place. Found and checked by
//   bench_solver --sweep all
// which halves and doubles each of them and prints, over shapes from 8 to 144 GPUs, what that does
// to the mean peak, to the worst layer and to the time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace eplbd {

struct SearchConstants {
  // How near to its bound a region counts as there, as a part of it: `per_way` divided by the
  // number of ways in which two GPUs can exchange slots (a few at 3 slots a GPU, thousands at 9),
  // between `finest` and `coarsest`. Counting noise is a thousand times `finest`; doubled,
  // placements are no longer more even in the mean than what they are compared with. `per_way`
  // doubled: 4 and 5 slots a GPU end a few ten thousandths higher; halved: they take ten times as
  // long. `coarsest` likewise at 3; on fewer than
  // `many_gpus` there is time for more, and it is as much smaller.
  double finest = 2e-5;
  double coarsest = 7e-4;
  int32_t many_gpus = 64;
  double per_way = 1.5e-2;
  // So many tolerances above its bound a region is left.
  double settled = 1.5;
  // Random changes before a region is left that stays farther off: fewer the larger it is, as each
  // costs more. Doubled: twice the time where few slots a GPU leave every bound out of reach.
  int32_t attempts_by_size = 2300000;  // divided by the region's slots, and by its GPUs
  int32_t least_attempts = 8;
  int32_t most_attempts = 2000;
  // Of these, from one start, where another is cheap: up to so many GPUs. Fewer give up a good
  // start too early, more stay with one that has too many replicas of the hottest expert; nearer
  // than `near` it has not.
  int32_t attempts_of_a_start = 16;
  int32_t few_gpus = 16;
  double near = 1e-3;
  // A descent so far above its target takes single exchanges and replacements before fine ones.
  double far = 3e-2;
  // A step need not be the best there is, if no more than this part of the way is left then.
  double left_of_the_way = 0.3;
  // Exchanges are tried of up to so many slots, where a GPU has at most so many ways to choose
  // them: each more finds finer ones, and costs the square to look through.
  int32_t most_slots = 3;
  int32_t most_subsets = 128;
  // Two slots a GPU: moves of spare replicas between experts. Halved: up to a thousandth worse.
  int32_t count_moves = 8000;
  // Groups on nodes: packings that are filled, best first.
  int32_t most_packings = 4;
};

}  // namespace eplbd
