// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/layer_path.h"

#include <catch2/catch.hpp>

#include "core/model/placement.h"
#include "tests/core/shapes.h"

namespace eplbd {
namespace {

// 2 layers of 6 experts on 4 GPUs of 2 slots.
struct PathFixture {
  Topology topology = make_topology(2, 6, 8, 4);
  std::vector<int32_t> map = Placement::initial(topology).map();

  // One slot a step; `gains` is what each adds.
  static LayerPath path_of(int32_t layer, const std::vector<SlotChange>& changes,
                           const std::vector<double>& gains) {
    LayerPath path{.layer = layer, .weight = 1, .points = {}};
    double gain = 0;
    for (size_t i = 0; i < changes.size(); ++i) {
      gain += gains[i];
      path.points.push_back({{{changes[i], {}}, 1, 1}, gain, static_cast<int32_t>(i + 1)});
    }
    return path;
  }
};

TEST_CASE_METHOD(PathFixture, "A path is worth most to where its gain a move is highest",
                 "[incremental]") {
  LayerPath path = path_of(0, {{0, 5}, {2, 5}, {4, 1}}, {0.1, 0.5, 0.1});
  CHECK(path.best_stretch(3) == std::pair<size_t, double>{2, 0.3});
  CHECK(path.best_stretch(1) == std::pair<size_t, double>{1, 0.1});
  path.taken = 3;
  CHECK(path.best_stretch(3) == std::pair<size_t, double>{3, 0.0});
}

TEST_CASE_METHOD(PathFixture, "Steps are taken where they gain most, as far as moves reach",
                 "[incremental]") {
  std::vector<LayerPath> paths = {path_of(0, {{0, 5}, {2, 5}}, {0.4, 0.1}),
                                  path_of(1, {{0, 3}, {2, 4}}, {0.3, 0.2})};
  StepTaker taker(topology, {.moves = 3}, map);
  taker.take(paths);
  CHECK(paths[0].taken == 1);
  CHECK(paths[1].taken == 2);
  CHECK(taker.layer(0)[0] == 5);
  CHECK(taker.layer(0)[2] == map[2]);
  CHECK(taker.layer(1)[0] == 3);
  CHECK(taker.layer(1)[2] == 4);
}

TEST_CASE_METHOD(PathFixture, "A GPU takes in what it may, repairs included", "[incremental]") {
  std::vector<LayerPath> paths = {path_of(0, {{0, 5}, {1, 4}, {6, 1}}, {0.4, 0.3, 0.2}),
                                  path_of(1, {{0, 3}, {2, 4}}, {0.1, 0.1})};
  StepTaker taker(topology, {.moves_per_gpu = 2}, map);
  std::vector<int32_t> required(taker.layer(1).begin(), taker.layer(1).end());
  required[1] = 5;
  taker.require(1, required);
  CHECK(taker.layer(1)[1] == 5);
  CHECK(taker.full_gpus() == std::vector<char>(4));
  taker.take(paths);
  CHECK(paths[0].taken == 1);  // what follows in GPU 0 is too much
  CHECK(paths[1].taken == 0);
  CHECK(taker.full_gpus() == std::vector<char>{1, 0, 0, 0});

  // Ways around it go on from there.
  std::vector<LayerPath> around = {path_of(1, {{2, 4}, {4, 1}}, {0.1, 0.1})};
  taker.take(around);
  CHECK(around[0].taken == 2);
}

}  // namespace
}  // namespace eplbd
