// Writes one MessagePack map with string keys; arrays of numbers go in as `bin`, little-endian.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define MSGPACK_NO_BOOST
#include <bit>
#include <cstdint>
#include <msgpack.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/workers/worker_report.h"

namespace eplbd {

// Keys are counted as they are added: the header comes last.
class MsgpackMap {
 public:
  template <typename T>
  void add(std::string_view key, const T& value) {
    begin(key);
    packer_.pack(value);
  }
  // The packer would send a whole number as an integer; the wire says float64.
  void add(std::string_view key, double value) {
    begin(key);
    const auto bits = std::bit_cast<uint64_t>(value);
    char bytes[1 + sizeof(bits)] = {'\xcb'};
    for (size_t i = 0; i < sizeof(bits); ++i) {
      bytes[1 + i] = static_cast<char>(bits >> (8 * (sizeof(bits) - 1 - i)));
    }
    body_.write(bytes, sizeof(bytes));
  }
  template <typename T>
  void add_array(std::string_view key, std::span<const T> values) {
    begin(key);
    const auto bytes = static_cast<uint32_t>(values.size_bytes());
    packer_.pack_bin(bytes);
    if (bytes > 0) {
      packer_.pack_bin_body(reinterpret_cast<const char*>(values.data()), bytes);
    }
  }
  template <typename T>
  void add_array(std::string_view key, const PackedArray<T>& values) {
    std::vector<T> copy(values.size());
    values.copy_to(copy);
    add_array(key, std::span<const T>(copy));
  }
  void add_binary(std::string_view key, std::string_view bytes) {
    add_array(key, std::span<const char>(bytes.data(), bytes.size()));
  }
  void add_binaries(std::string_view key, const std::vector<std::string>& values) {
    begin(key);
    packer_.pack_array(static_cast<uint32_t>(values.size()));
    for (const std::string& value : values) {
      packer_.pack_bin(static_cast<uint32_t>(value.size()));
      packer_.pack_bin_body(value.data(), static_cast<uint32_t>(value.size()));
    }
  }
  std::string finish() const {
    msgpack::sbuffer head;
    msgpack::packer<msgpack::sbuffer>(head).pack_map(keys_);
    return std::string(head.data(), head.size()) + std::string(body_.data(), body_.size());
  }

 private:
  void begin(std::string_view key) {
    ++keys_;
    packer_.pack(key);
  }

  msgpack::sbuffer body_;
  msgpack::packer<msgpack::sbuffer> packer_{body_};
  uint32_t keys_ = 0;
};

}  // namespace eplbd
