// SPDX-License-Identifier: Apache-2.0
#include "core/balance/descending.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "core/model/vector_kernel.h"

namespace eplbd {
namespace {

constexpr size_t kCounted = 256;
constexpr size_t kLanes = 16;

// For each value how many are larger.
struct CountLarger {
  static constexpr size_t kMostLanes = kLanes;
  template <typename Registers>
  [[gnu::always_inline]] static void run(std::span<const float> values, size_t count,
                                         std::span<int32_t> larger) {
    for (size_t i = 0; i < count; i += Registers::kLanes) {
      typename Registers::Floats mine;
      load(mine, &values[i]);
      typename Registers::Ints counted{};
      for (const float value : values.first(count)) counted -= mine < value;
      store(&larger[i], counted);
    }
  }
};

}  // namespace

// To count for each how many are larger compares all with all, yet without a branch: up to so many
// that is several times faster than to sort.
void order_descending(std::span<const float> values, std::span<int32_t> order) {
  const size_t size = values.size();
  if (size > kCounted) {
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return values[a] > values[b]; });
    return;
  }
  std::array<float, kCounted> padded;
  std::copy(values.begin(), values.end(), padded.begin());
  std::array<int32_t, kCounted> larger;
  std::fill(padded.begin() + size, padded.begin() + (size + kLanes - 1) / kLanes * kLanes, 0.0F);
  run_widest<CountLarger>(padded, size, larger);
  std::array<uint8_t, kCounted> equal;  // seen so far, by how many are larger
  std::fill_n(equal.begin(), size, uint8_t{0});
  for (size_t i = 0; i < size; ++i) {
    order[larger[i] + equal[larger[i]]++] = static_cast<int32_t>(i);
  }
}

}  // namespace eplbd
