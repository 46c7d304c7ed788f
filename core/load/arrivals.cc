// SPDX-License-Identifier: Apache-2.0
#include "core/load/arrivals.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <numeric>

#include "core/model/vector_kernel.h"

namespace eplbd {
namespace {

constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();
// Sums of squares are added up in so many places whatever the width of registers, so that what
// comes out is the same everywhere.
constexpr size_t kPlaces = 16;

struct Row {
  const std::byte* values;
  uint32_t* last;  // null: none
  uint32_t* counts;
  uint32_t* sums;
  const float* expected;  // null: nothing is
  size_t size;
};

struct RowSums {
  uint64_t tokens = 0;
  uint32_t most = 0;
  double squares = 0;
};

double exact_squares(const Row& row, double tokens) {
  double squares = 0;
  for (size_t i = 0; i < row.size; ++i) {
    const double error = row.counts[i] - tokens * row.expected[i];
    squares += error * error;
  }
  return squares;
}

struct TakeRow {
  static constexpr size_t kMostLanes = kPlaces;

  template <typename Registers>
  [[gnu::always_inline]] static RowSums run(const Row& row) {
    RowSums sums = row.last != nullptr ? add<Registers, true>(row) : add<Registers, false>(row);
    if (row.expected == nullptr) return sums;
    // As signed numbers, which convert in one step.
    const bool small = sums.most < uint32_t{1} << 31;
    const auto tokens = static_cast<double>(sums.tokens);
    sums.squares =
        small ? squares<Registers>(row, static_cast<float>(tokens)) : exact_squares(row, tokens);
    return sums;
  }

  template <typename Registers, bool kCounter>
  [[gnu::always_inline]] static RowSums add(const Row& row) {
    using Words = typename Registers::Words;
    constexpr size_t kLanes = Registers::kLanes;
    const size_t whole = row.size / kLanes * kLanes;
    Words tokens{}, most{};
    for (size_t i = 0; i < whole; i += kLanes) {
      Words value, sum;
      load(value, row.values + i * sizeof(uint32_t));
      if constexpr (kCounter) {
        Words before;
        load(before, row.last + i);
        store(row.last + i, value);
        value -= before;
      }
      store(row.counts + i, value);
      load(sum, row.sums + i);
      store(row.sums + i, sum + value);
      tokens += value;
      most = value > most ? value : most;
    }
    RowSums result;
    for (size_t i = whole; i < row.size; ++i) {
      uint32_t value;
      load(value, row.values + i * sizeof(uint32_t));
      if constexpr (kCounter) value -= std::exchange(row.last[i], value);
      row.counts[i] = value;
      row.sums[i] += value;
      result.tokens += value;
      result.most = std::max(result.most, value);
    }
    for (size_t lane = 0; lane < kLanes; ++lane) {
      result.tokens += tokens[lane];
      result.most = std::max<uint32_t>(result.most, most[lane]);
    }
    // A lane that may have overflown says nothing.
    if (result.most > kMost / (row.size / kLanes + 1)) {
      result.tokens = std::accumulate(row.counts, row.counts + row.size, uint64_t{0});
    }
    return result;
  }

  template <typename Registers>
  [[gnu::always_inline]] static double squares(const Row& row, float tokens) {
    using Floats = typename Registers::Floats;
    using Ints = typename Registers::Ints;
    constexpr size_t kLanes = Registers::kLanes;
    constexpr size_t kRegisters = kPlaces / kLanes;
    const size_t whole = row.size / kPlaces * kPlaces;
    Floats sums[kRegisters] = {};
    for (size_t i = 0; i < whole; i += kPlaces) {
      for (size_t r = 0; r < kRegisters; ++r) {
        Ints count;
        Floats share;
        load(count, row.counts + i + r * kLanes);
        load(share, row.expected + i + r * kLanes);
        const Floats error = __builtin_convertvector(count, Floats) - tokens * share;
        sums[r] += error * error;
      }
    }
    double squares = 0;
    for (const Floats& sum : sums) {
      for (size_t lane = 0; lane < kLanes; ++lane) squares += sum[lane];
    }
    for (size_t i = whole; i < row.size; ++i) {
      const float error = static_cast<float>(row.counts[i]) - tokens * row.expected[i];
      squares += error * error;
    }
    return squares;
  }
};

}  // namespace

Arrivals::Arrivals(size_t layers, size_t columns)
    : layers_(layers),
      counts_(layers * columns),
      layer_tokens_(layers),
      layer_squares_(layers),
      sums_(layers * columns),
      room_(kMost) {}

void Arrivals::take(std::span<const std::byte> values, std::span<uint32_t> last) {
  assert(values.size() == counts_.size() * sizeof(uint32_t));
  const size_t columns = counts_.size() / layers_;
  most_ = 0;
  for (size_t layer = 0; layer < layers_; ++layer) {
    const size_t first = layer * columns;
    const RowSums row = run_widest<TakeRow>(Row{
        values.data() + first * sizeof(uint32_t), last.empty() ? nullptr : &last[first],
        &counts_[first], &sums_[first], expected_.empty() ? nullptr : &expected_[first], columns});
    layer_tokens_[layer] = row.tokens;
    layer_squares_[layer] = row.squares;
    most_ = std::max(most_, row.most);
  }
}

bool Arrivals::keep(Duration covered) {
  if (most_ > room_) {
    take_back();
    return false;
  }
  room_ -= most_;
  const double tokens = std::accumulate(layer_tokens_.begin(), layer_tokens_.end(), 0.0);
  tokens_ += tokens;
  token_seconds_ += tokens * to_seconds(covered);
  longest_ = std::max(longest_, covered);
  return true;
}

// Sums modulo 2^32 come back to what they were, whatever they were.
void Arrivals::take_back() {
  for (size_t i = 0; i < sums_.size(); ++i) sums_[i] -= counts_[i];
}

Duration Arrivals::covered() const {
  return tokens_ > 0 ? from_seconds(token_seconds_ / tokens_) : longest_;
}

void Arrivals::clear() {
  std::fill(sums_.begin(), sums_.end(), 0);
  room_ = kMost;
  tokens_ = token_seconds_ = 0;
  longest_ = Duration{-1};
}

}  // namespace eplbd
