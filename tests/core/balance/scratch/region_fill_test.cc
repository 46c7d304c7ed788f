// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/region_fill.h"

#include <catch2/catch.hpp>
#include <vector>

#include "core/balance/bound.h"
#include "tests/core/balance/scratch/regions.h"

using namespace eplbd;

namespace {

RegionState state_of(const std::vector<double>& weights, const std::vector<double>& speeds,
                     int32_t slots_per_gpu, const RegionPlan& plan) {
  RegionState state;
  state.reset(weights, speeds, slots_per_gpu);
  state.load(plan.expert_at);
  return state;
}

}  // namespace

TEST_CASE("any region is filled, and its peak is what it says", "[region_fill]") {
  const SearchConstants constants;
  Random random(13);
  for (int i = 0; i < 60; ++i) {
    const int32_t gpus = 2 + random.below(19);
    const int32_t slots_per_gpu = 1 + random.below(6);
    const int32_t experts = slots_per_gpu + random.below(gpus * slots_per_gpu - slots_per_gpu + 1);
    const auto weights = random_weights(experts, 0.3 + 0.5 * random.below(4), random);
    const auto speeds = i % 3 == 0 ? mixed_speeds(gpus) : std::vector<double>(gpus, 1.0);
    RegionFiller filler(slots_per_gpu, constants);
    filler.take(weights, speeds);
    RegionPlan plan;
    filler.fill(0, plan, random);
    INFO(experts << " experts, " << gpus << " GPUs, " << slots_per_gpu << " slots each");
    const RegionState state = state_of(weights, speeds, slots_per_gpu, plan);
    REQUIRE(is_consistent(state));
    CHECK(state.peak() == Approx(plan.peak).epsilon(1e-9));
    CHECK(plan.peak >= peak_bound(weights, speeds, slots_per_gpu) * (1 - 1e-9));
    const double before = plan.peak;
    filler.attempt(4, plan, random);
    CHECK(plan.peak <= before);
    REQUIRE(is_consistent(state_of(weights, speeds, slots_per_gpu, plan)));
  }
}

TEST_CASE("more slots on a GPU than experts hold them all", "[region_fill]") {
  const SearchConstants constants;
  Random random(1);
  const std::vector<double> weights = {6, 3}, speeds = {1, 2};
  RegionFiller filler(3, constants);
  filler.take(weights, speeds);
  RegionPlan plan;
  filler.fill(0, plan, random);
  CHECK(plan.expert_at == std::vector<int32_t>{0, 1, 0, 0, 1, 0});
  CHECK(plan.peak == 4.5);
  CHECK(filler.at_bound(plan));
  CHECK_FALSE(filler.far(plan));
}

TEST_CASE("a region that need not be even is left as soon as it is low enough", "[region_fill]") {
  const SearchConstants constants;
  Random random(2), untouched(2);
  const auto weights = random_weights(64, 1, random);
  const std::vector<double> speeds(8, 1.0);
  untouched = random;
  RegionFiller filler(9, constants);
  filler.take(weights, speeds);
  RegionPlan plan;
  double mean = 0;
  for (const double weight : weights) mean += weight / 8;
  filler.fill(2 * mean, plan, random);
  CHECK(plan.peak <= 2 * mean);
  CHECK(random.next() == untouched.next());
}
