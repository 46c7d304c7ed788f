// NumPy's .npy files (format versions 1 to 3): the header read, and little-endian arrays written.
// Format: numpy/lib/format.py, NEP 1.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/names.h"

namespace eplbd {

enum class NpyType { int32, int64, uint32, uint64, float32, float64 };
constexpr auto names(NpyType) {  // as descriptors of a header
  return std::to_array<std::string_view>({"<i4", "<i8", "<u4", "<u8", "<f4", "<f8"});
}
size_t size_of(NpyType type);

struct NpyHeader {
  NpyType type = NpyType::uint32;
  std::vector<int64_t> shape;  // C order
  size_t data_offset = 0;      // bytes before the first element
  int64_t elements() const;
};

// Throws std::runtime_error, a sentence without the file's name, for what is no .npy, is not one of
// our types, is big-endian or in Fortran order, or whose size is not what its shape says.
NpyHeader read_npy_header(std::span<const std::byte> file);

// Element `index` of the data, as a number. Requires: index < elements().
double npy_element(const NpyHeader& header, std::span<const std::byte> file, int64_t index);

// The bytes that come before the data of a C-order array (version 1.0).
std::string npy_header(NpyType type, std::span<const int64_t> shape);

}  // namespace eplbd
