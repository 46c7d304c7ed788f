// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/region_state.h"

#include <catch2/catch.hpp>
#include <vector>

#include "tests/core/balance/scratch/regions.h"

using namespace eplbd;

namespace {

RegionState loaded() {
  RegionState state;
  state.reset(std::vector<double>{12, 6, 4, 2, 1}, std::vector<double>{1, 1, 2}, 2);
  state.load(std::vector<int32_t>{0, 1, 0, 2, 3, 4});
  return state;
}

}  // namespace

TEST_CASE("a region knows what its GPUs carry, and for how long", "[region_state]") {
  const RegionState state = loaded();
  CHECK(is_consistent(state));
  CHECK(state.tokens == std::vector<double>{12, 10, 3});
  CHECK(state.fullest() == 0);
  CHECK(state.peak() == 12);
  CHECK(state.mean == 25.0 / 4);
  CHECK(state.time(2) == 1.5);
  CHECK_FALSE(state.alike);
  CHECK(state.slot_of(1, 2) == 3);
}

TEST_CASE("every change keeps a region's books, and an earlier copy brings it back",
          "[region_state]") {
  RegionState state = loaded();
  const RegionState before = state;
  const std::vector<uint32_t> versions = state.version;
  state.exchange(1, 4);  // expert 1 for expert 3
  CHECK(is_consistent(state));
  CHECK(state.tokens == std::vector<double>{8, 10, 7});
  CHECK(state.version[0] != versions[0]);
  CHECK(state.version[1] == versions[1]);
  state.replace(2, 1);  // a replica of 0 becomes one of 1
  CHECK(is_consistent(state));
  CHECK(state.count == std::vector<int32_t>{1, 2, 1, 1, 1});
  // Expert 0's other GPU, and expert 1's, carry something else too.
  for (const int32_t gpu : {0, 1, 2}) CHECK(state.version[gpu] != versions[gpu]);
  const std::vector<uint32_t> changed = state.version;
  state.go_back(before);
  CHECK(is_consistent(state));
  CHECK(state.expert_at == before.expert_at);
  CHECK(state.tokens == before.tokens);
  for (const int32_t gpu : {0, 1, 2}) CHECK(state.version[gpu] > changed[gpu]);
}

TEST_CASE("more than 64 GPUs hold an expert", "[region_state]") {
  constexpr int32_t kGpus = 130;
  RegionState state;
  state.reset(std::vector<double>{260, 1}, std::vector<double>(kGpus, 1.0), 2);
  std::vector<int32_t> map;
  for (int32_t gpu = 0; gpu < kGpus; ++gpu) map.insert(map.end(), {0, 1});
  state.load(map);
  CHECK(is_consistent(state));
  std::vector<int32_t> holders;
  state.for_each_holder(0, [&](int32_t gpu) { holders.push_back(gpu); });
  CHECK(holders.size() == kGpus);
  CHECK(std::is_sorted(holders.begin(), holders.end()));
}
