// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/pair_sums.h"

#include <bit>

namespace eplbd {

void PairSums::build(std::span<const int32_t> weights, std::span<const int16_t> items) {
  int32_t lightest = weights[items[0]];
  int32_t heaviest = lightest;
  for (const int16_t item : items) {
    lightest = std::min(lightest, weights[item]);
    heaviest = std::max(heaviest, weights[item]);
  }
  least_ = 2 * lightest;  // bounds: they need not be sharp
  most_ = 2 * heaviest;
  const size_t count = items.size() * (items.size() - 1) / 2;
  const auto range = static_cast<uint32_t>(most_ - least_);
  shift_ = std::max(
      kFiner, static_cast<int>(std::bit_width(range)) - static_cast<int>(std::bit_width(count)));
  const int fine = shift_ - kFiner;
  first_of_.assign(bucket(most_) + 1, -1);
  taken_.assign((range >> fine) / 8 + 1 + sizeof(uint32_t), 0);
  pairs_.resize(count);
  int32_t next = 0;
  for (size_t i = 1; i < items.size(); ++i) {
    const int32_t weight = weights[items[i]];
    for (size_t j = 0; j < i; ++j, ++next) {
      const int32_t sum = weight + weights[items[j]];
      const uint32_t step = static_cast<uint32_t>(sum - least_) >> fine;
      taken_[step / 8] |= static_cast<uint8_t>(1U << (step % 8));
      int32_t& first = first_of_[step >> kFiner];
      pairs_[next] = {sum, items[i], items[j], first};
      first = next;
    }
  }
}

}  // namespace eplbd
