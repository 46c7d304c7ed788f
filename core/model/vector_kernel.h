// One way to write an inner loop over vector registers: a kernel is written once, for registers of
// any width, and compiled for each kind of processor. Which of them runs makes no difference to
// what comes out, only to how soon: where floating-point numbers are added up, in so many sums as
// kMostLanes has, and compiled without contraction (core/CMakeLists.txt).
//
//   struct Scale {
//     static constexpr size_t kMostLanes = 8;
//     template <typename Registers>
//     [[gnu::always_inline]] static void run(float by, std::span<float> values);
//   };
//   run_widest<Scale>(2.0F, values);
//
// run() calculates with Registers::Floats, Ints and Words, and gets the instructions of the
// processor that it is inlined for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

namespace eplbd {

template <size_t kCount>
struct RegistersOf {
  static constexpr size_t kLanes = kCount;
  using Floats [[gnu::vector_size(kCount * sizeof(float))]] = float;
  using Ints [[gnu::vector_size(kCount * sizeof(int32_t))]] = int32_t;
  using Words [[gnu::vector_size(kCount * sizeof(uint32_t))]] = uint32_t;
};

// From memory at any alignment, and back.
template <typename Vector>
[[gnu::always_inline]] inline void load(Vector& to, const void* from) {
  std::memcpy(&to, from, sizeof to);
}
template <typename Vector>
[[gnu::always_inline]] inline void store(void* to, const Vector& from) {
  std::memcpy(to, &from, sizeof from);
}

// Numbers of which no whole register lies across two cache lines: that takes twice as long.
template <typename T>
struct CacheLineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};
  CacheLineAllocator() = default;
  template <typename Other>
  explicit CacheLineAllocator(const CacheLineAllocator<Other>&) {}
  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), kLine)); }
  void deallocate(T* at, size_t) { ::operator delete(at, kLine); }
  bool operator==(const CacheLineAllocator&) const = default;
};
template <typename T>
using AlignedVector = std::vector<T, CacheLineAllocator<T>>;

#if defined(__x86_64__)
template <typename Kernel, typename... Arguments>
[[gnu::target("avx2")]] auto run_on_avx2(Arguments&&... arguments) {
  return Kernel::template run<RegistersOf<8>>(std::forward<Arguments>(arguments)...);
}

template <typename Kernel, typename... Arguments>
[[gnu::target("avx512f")]] auto run_on_avx512(Arguments&&... arguments) {
  return Kernel::template run<RegistersOf<16>>(std::forward<Arguments>(arguments)...);
}
#endif

template <typename Kernel, typename... Arguments>
auto run_widest(Arguments&&... arguments) {
#if defined(__x86_64__)
  if constexpr (Kernel::kMostLanes >= 16) {
    static const bool avx512 = __builtin_cpu_supports("avx512f");
    if (avx512) return run_on_avx512<Kernel>(std::forward<Arguments>(arguments)...);
  }
  static const bool avx2 = __builtin_cpu_supports("avx2");
  if (avx2) return run_on_avx2<Kernel>(std::forward<Arguments>(arguments)...);
#endif
  return Kernel::template run<RegistersOf<4>>(std::forward<Arguments>(arguments)...);
}

}  // namespace eplbd
