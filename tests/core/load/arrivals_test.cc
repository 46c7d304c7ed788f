// SPDX-License-Identifier: Apache-2.0
#include "core/load/arrivals.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>

namespace eplbd {
namespace {

using Counts = std::vector<uint32_t>;

// The same, cell by cell and in wide numbers.
struct Reference {
  size_t experts;
  std::vector<double> shares;
  std::vector<uint64_t> sums;
  Counts counts;

  void take(const Counts& values, Counts* last) {
    counts = values;
    if (last == nullptr) return;
    for (size_t i = 0; i < values.size(); ++i) counts[i] = values[i] - (*last)[i];
    *last = values;
  }
  void keep() {
    for (size_t i = 0; i < counts.size(); ++i) sums[i] += counts[i];
  }
  uint64_t tokens(size_t layer) const {
    const auto row = counts.begin() + static_cast<ptrdiff_t>(layer * experts);
    return std::accumulate(row, row + static_cast<ptrdiff_t>(experts), uint64_t{0});
  }
  double squares(size_t layer) const {
    double sum = 0;
    for (size_t i = layer * experts; i < (layer + 1) * experts; ++i) {
      sum += std::pow(counts[i] - static_cast<double>(tokens(layer)) * shares[i], 2);
    }
    return sum;
  }
};

struct Bytes {  // at an odd address, as in a frame
  std::vector<std::byte> bytes;
  explicit Bytes(const Counts& values) : bytes(values.size() * sizeof(uint32_t) + 1) {
    std::memcpy(bytes.data() + 1, values.data(), bytes.size() - 1);
  }
  std::span<const std::byte> span() const { return std::span(bytes).subspan(1); }
};

TEST_CASE("One pass does what cell by cell comes out, at any width", "[arrivals]") {
  std::mt19937_64 random(5);
  for (const size_t experts : {1, 4, 7, 8, 16, 31, 64, 100}) {
    CAPTURE(experts);
    const size_t layers = 3;
    Arrivals arrivals(layers, experts);
    std::vector<float> shares(layers * experts);
    for (float& share : shares) share = static_cast<float>(random() % 1000) / 1e5F;
    arrivals.expect(shares);
    Reference reference{experts, {shares.begin(), shares.end()}, {}, {}};
    reference.sums.resize(shares.size());
    Counts last(shares.size());
    Counts expected_last = last;
    double tokens = 0;
    double token_seconds = 0;
    for (int message = 0; message < 40; ++message) {
      // Small, large, and so large that a sum of a row, or of a few messages, is beyond 32 bits;
      // running counters wrap.
      const int bits = 1 + static_cast<int>(random() % 24);
      const bool cumulative = random() % 2 == 0;
      const bool kept = random() % 4 != 0;
      const int covered = message % 2 == 0 ? 2 : 3;  // seconds
      Counts values(shares.size());
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<uint32_t>(random() >> (64 - bits)) + (cumulative ? last[i] : 0);
      }
      const Bytes bytes(values);
      arrivals.take(bytes.span(), cumulative ? std::span(last) : std::span<uint32_t>());
      reference.take(values, cumulative ? &expected_last : nullptr);
      REQUIRE(Counts(arrivals.counts().begin(), arrivals.counts().end()) == reference.counts);
      REQUIRE(last == expected_last);
      CHECK(arrivals.most() == *std::max_element(reference.counts.begin(), reference.counts.end()));
      for (size_t layer = 0; layer < layers; ++layer) {
        CHECK(arrivals.layer_tokens()[layer] == reference.tokens(layer));
        CHECK(arrivals.layer_squares()[layer] == Approx(reference.squares(layer)).epsilon(1e-4));
        tokens += kept ? static_cast<double>(reference.tokens(layer)) : 0;
        token_seconds += kept ? covered * static_cast<double>(reference.tokens(layer)) : 0;
      }
      if (kept) {
        reference.keep();
        REQUIRE(arrivals.keep(std::chrono::seconds(covered)));
      } else {
        arrivals.take_back();
      }
      REQUIRE(std::equal(arrivals.sums().begin(), arrivals.sums().end(), reference.sums.begin()));
    }
    CHECK(to_seconds(arrivals.covered()) == Approx(token_seconds / tokens));
    CHECK(arrivals.longest() == std::chrono::seconds(3));
    arrivals.clear();
    CHECK(arrivals.empty());
    CHECK(arrivals.sums()[0] == 0);
  }
}

TEST_CASE("Sums never overflow: what may not fit stands apart", "[arrivals]") {
  const uint32_t most = std::numeric_limits<uint32_t>::max();
  Arrivals arrivals(2, 8);
  const auto take = [&](uint32_t cell) {
    Counts values(16, 1);
    values[9] = cell;
    arrivals.take(Bytes(values).span(), {});
  };
  take(most);
  CHECK(arrivals.layer_tokens()[1] == uint64_t{most} + 7);
  CHECK(arrivals.keep(Duration{0}));  // the first fits
  CHECK(arrivals.full());
  CHECK(arrivals.sums()[9] == most);
  take(1);
  CHECK_FALSE(arrivals.keep(Duration{0}));
  CHECK(arrivals.sums()[9] == most);
  CHECK(arrivals.sums()[0] == 1);
  CHECK(arrivals.counts()[9] == 1);
  arrivals.clear();
  // Whatever comes fits as long as it is not full and no cell has 2^31.
  for (int i = 0; !arrivals.full(); ++i) {
    REQUIRE(i < 2);
    take((uint32_t{1} << 31) - 1);
    CHECK(arrivals.keep(Duration{0}));
  }
}

TEST_CASE("Cells of 2^31 and more lie as far off as they do", "[arrivals]") {
  Arrivals arrivals(1, 16);
  const std::vector<float> shares(16, 1.0F / 16);
  arrivals.expect(shares);
  Counts values(16);
  values[3] = 3'000'000'000;
  arrivals.take(Bytes(values).span(), {});
  const double share = 3e9 / 16;
  CHECK(arrivals.layer_squares()[0] == Approx(std::pow(3e9 - share, 2) + 15 * share * share));
}

}  // namespace
}  // namespace eplbd
