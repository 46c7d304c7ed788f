// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/replica_counts.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <random>

using namespace eplbd;

namespace {

std::vector<float> drawn(size_t count, double sigma, std::mt19937& random) {
  std::lognormal_distribution<float> draw(0, static_cast<float>(sigma));
  std::vector<float> loads(count);
  for (float& load : loads) load = draw(random);
  return loads;
}

// One share a slot, in the order of experts.
std::vector<float> shares_of(const std::vector<float>& loads, const std::vector<int32_t>& counts) {
  std::vector<float> shares;
  for (size_t expert = 0; expert < loads.size(); ++expert) {
    shares.insert(shares.end(), counts[expert], loads[expert] / static_cast<float>(counts[expert]));
  }
  return shares;
}

// Of a packing in the order of `shares`.
float fullest(const std::vector<float>& shares, size_t slots_per_gpu) {
  float most = 0;
  for (auto gpu = shares.begin(); gpu != shares.end(); gpu += slots_per_gpu) {
    most = std::max(most, std::accumulate(gpu, gpu + slots_per_gpu, 0.0F));
  }
  return most;
}

// The least over all counts for the experts from `first` on, so many slots to spare.
float least_peak(const std::vector<float>& loads, std::vector<int32_t>& counts, size_t first,
                 int32_t spare, int32_t gpus, int32_t slots_per_gpu) {
  if (first == counts.size()) {
    if (spare > 0) return 1e30F;
    ReplicaCounts fixed;
    fixed.start(loads, counts, std::vector<float>(gpus, 1.0F), slots_per_gpu);
    return fixed.peak();
  }
  float least = 1e30F;
  for (int32_t more = 0; more <= std::min(spare, gpus - 1); ++more) {
    counts[first] = 1 + more;
    least =
        std::min(least, least_peak(loads, counts, first + 1, spare - more, gpus, slots_per_gpu));
  }
  counts[first] = 1;
  return least;
}

}  // namespace

TEST_CASE("at two slots a GPU the peak is that of the best packing", "[replica_counts]") {
  std::mt19937 random(3);
  const std::vector<int32_t> counts{2, 1, 1, 2, 1, 1};
  const std::vector<float> alike(4, 1.0F);
  for (int32_t tries = 0; tries < 50; ++tries) {
    const auto loads = drawn(6, 1.0, random);
    auto shares = shares_of(loads, counts);
    std::sort(shares.begin(), shares.end());
    float best = 1e30F;
    do {
      best = std::min(best, fullest(shares, 2));
    } while (std::next_permutation(shares.begin(), shares.end()));
    ReplicaCounts replicas;
    replicas.start(loads, counts, alike, 2);
    CHECK(replicas.peak() == Approx(best).epsilon(1e-5));
  }
}

TEST_CASE("with more slots no packing is below the peak", "[replica_counts]") {
  std::mt19937 random(4);
  std::vector<int32_t> counts(20, 1);
  counts[0] = counts[1] = counts[2] = counts[3] = 2;
  for (int32_t tries = 0; tries < 200; ++tries) {
    const auto loads = drawn(20, 1.0, random);
    auto shares = shares_of(loads, counts);
    std::shuffle(shares.begin(), shares.end(), random);
    ReplicaCounts replicas;
    replicas.start(loads, counts, std::vector<float>(8, 1.0F), 3);
    CHECK(replicas.peak() <= fullest(shares, 3) * (1 + 1e-5F));
  }
}

TEST_CASE("slots pass to experts that need them, down to near the best counts",
          "[replica_counts]") {
  constexpr int32_t kGpus = 6;
  const int32_t slots_per_gpu = GENERATE(2, 3);
  const int32_t experts = kGpus * slots_per_gpu - 4;
  std::mt19937 random(5);
  double sum = 0;
  constexpr int32_t kTries = 30;
  for (int32_t tries = 0; tries < kTries; ++tries) {
    const auto loads = drawn(experts, 1.0, random);
    std::vector<int32_t> counts(experts, 1);
    for (int32_t i = 0; i < 4; ++i) counts[experts - 1 - i] = 2;
    ReplicaCounts replicas;
    replicas.start(loads, counts, std::vector<float>(kGpus, 1.0F), slots_per_gpu);
    const float first = replicas.peak();
    while (const auto recount = replicas.improve(1e-6F)) {
      REQUIRE(recount->from != recount->to);
      REQUIRE(--counts[recount->from] >= 1);
      REQUIRE(++counts[recount->to] <= kGpus);
    }
    const float last = replicas.peak();
    CHECK(last <= first);
    ReplicaCounts same;
    same.start(loads, counts, std::vector<float>(kGpus, 1.0F), slots_per_gpu);
    CHECK(same.peak() == Approx(last).epsilon(1e-5));
    std::vector<int32_t> all(experts, 1);
    const float best = least_peak(loads, all, 0, 4, kGpus, slots_per_gpu);
    CHECK(last >= best * (1 - 1e-5F));
    sum += last / best;
  }
  CHECK(sum / kTries < 1.01);
}

TEST_CASE("a faster GPU takes the heavier replicas", "[replica_counts]") {
  const std::vector<float> loads{8, 4, 2, 2};
  const std::vector<int32_t> counts{1, 1, 1, 1};
  ReplicaCounts replicas;
  replicas.start(loads, counts, std::vector<float>{4, 2}, 2);
  CHECK(replicas.peak() == Approx(3));  // 4 + 2 on the slow one, 8 + 2 on the other
}

TEST_CASE("without load no slot passes on", "[replica_counts]") {
  ReplicaCounts replicas;
  replicas.start(std::vector<float>(6), std::vector<int32_t>{2, 2, 1, 1, 1, 1},
                 std::vector<float>(4, 1.0F), 2);
  CHECK_FALSE(replicas.improve(1e-6F));
}
