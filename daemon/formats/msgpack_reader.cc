// SPDX-License-Identifier: Apache-2.0
#include "daemon/formats/msgpack_reader.h"

#include <array>
#include <bit>

namespace eplbd {

std::optional<uint64_t> MsgpackValue::as_uint() const {
  if (type != MsgpackType::unsigned_integer) return std::nullopt;
  return integer;
}

std::optional<double> MsgpackValue::as_double() const {
  switch (type) {
    case MsgpackType::floating:
      return floating;
    case MsgpackType::unsigned_integer:
      return static_cast<double>(integer);
    case MsgpackType::negative_integer:
      return static_cast<double>(static_cast<int64_t>(integer));
    default:
      return std::nullopt;
  }
}

std::optional<std::string_view> MsgpackValue::as_string() const {
  if (type != MsgpackType::string) return std::nullopt;
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::optional<std::span<const std::byte>> MsgpackValue::as_binary() const {
  if (type != MsgpackType::binary) return std::nullopt;
  return bytes;
}

std::optional<uint64_t> MsgpackReader::big_endian(size_t width) {
  if (bytes_.size() - position_ < width) return std::nullopt;
  uint64_t value = 0;
  for (size_t i = 0; i < width; ++i) {
    value = value << 8 | std::to_integer<uint64_t>(bytes_[position_ + i]);
  }
  position_ += width;
  return value;
}

std::optional<MsgpackValue> MsgpackReader::integer(size_t width, bool is_signed) {
  const auto raw = big_endian(width);
  if (!raw) return std::nullopt;
  MsgpackValue value;
  value.type = MsgpackType::unsigned_integer;
  value.integer = *raw;
  const uint64_t sign_bit = uint64_t{1} << (width * 8 - 1);
  if (is_signed && (*raw & sign_bit) != 0) {
    value.type = MsgpackType::negative_integer;
    value.integer = *raw | ~(sign_bit - 1);  // sign-extended
  }
  return value;
}

std::optional<MsgpackValue> MsgpackReader::floating(size_t width) {
  const auto raw = big_endian(width);
  if (!raw) return std::nullopt;
  MsgpackValue value;
  value.type = MsgpackType::floating;
  value.floating =
      width == 4 ? std::bit_cast<float>(static_cast<uint32_t>(*raw)) : std::bit_cast<double>(*raw);
  return value;
}

std::optional<MsgpackValue> MsgpackReader::blob(MsgpackType type, std::optional<uint64_t> length) {
  if (!length) return std::nullopt;
  if (type == MsgpackType::extension) {
    if (at_end()) return std::nullopt;
    ++position_;  // the application's type, which nothing here asks for
  }
  if (bytes_.size() - position_ < *length) return std::nullopt;
  MsgpackValue value;
  value.type = type;
  value.bytes = bytes_.subspan(position_, *length);
  position_ += *length;
  return value;
}

std::optional<MsgpackValue> MsgpackReader::container(MsgpackType type,
                                                     std::optional<uint64_t> items) {
  if (!items) return std::nullopt;
  MsgpackValue value;
  value.type = type;
  value.items = static_cast<uint32_t>(*items);
  return value;
}

// Tags of one kind stand in a row, and the width of what follows doubles from one to the next.
std::optional<MsgpackValue> MsgpackReader::tagged(uint8_t tag) {
  MsgpackValue value;
  if (tag == 0xc0) return value;
  if (tag == 0xc1) return std::nullopt;  // never used
  if (tag <= 0xc3) {
    value.type = MsgpackType::boolean;
    value.integer = tag & 1U;
    return value;
  }
  const auto width = [tag](uint8_t first, size_t of_first) { return of_first << (tag - first); };
  if (tag <= 0xc6) return blob(MsgpackType::binary, big_endian(width(0xc4, 1)));
  if (tag <= 0xc9) return blob(MsgpackType::extension, big_endian(width(0xc7, 1)));
  if (tag <= 0xcb) return floating(width(0xca, 4));
  if (tag <= 0xcf) return integer(width(0xcc, 1), false);
  if (tag <= 0xd3) return integer(width(0xd0, 1), true);
  if (tag <= 0xd8) return blob(MsgpackType::extension, width(0xd4, 1));
  if (tag <= 0xdb) return blob(MsgpackType::string, big_endian(width(0xd9, 1)));
  if (tag <= 0xdd) return container(MsgpackType::array, big_endian(width(0xdc, 2)));
  return container(MsgpackType::map, big_endian(width(0xde, 2)));
}

std::optional<MsgpackValue> MsgpackReader::next() {
  if (at_end()) return std::nullopt;
  const auto tag = std::to_integer<uint8_t>(bytes_[position_++]);
  MsgpackValue value;
  if (tag <= 0x7f) {
    value.type = MsgpackType::unsigned_integer;
    value.integer = tag;
    return value;
  }
  if (tag >= 0xe0) {
    value.type = MsgpackType::negative_integer;
    value.integer = static_cast<uint64_t>(static_cast<int64_t>(static_cast<int8_t>(tag)));
    return value;
  }
  if (tag <= 0x8f) return container(MsgpackType::map, tag & 0x0fU);
  if (tag <= 0x9f) return container(MsgpackType::array, tag & 0x0fU);
  if (tag <= 0xbf) return blob(MsgpackType::string, tag & 0x1fU);
  return tagged(tag);
}

std::optional<MsgpackValue> MsgpackReader::next_whole(int depth) {
  // What is left of each container that was entered, innermost last.
  std::array<uint64_t, kMsgpackMaxDepth> left{};
  int entered = 0;
  std::optional<MsgpackValue> first;
  size_t begin = 0;
  do {
    const auto value = next();
    if (!value) return std::nullopt;
    if (!first) {
      first = value;
      begin = position_;
    }
    if (entered > 0) --left[entered - 1];
    const bool is_map = value->type == MsgpackType::map;
    if (is_map || value->type == MsgpackType::array) {
      if (depth + entered >= kMsgpackMaxDepth) return std::nullopt;
      if (is_map && value->items > kMsgpackMaxKeys) return std::nullopt;
      left[entered++] = uint64_t{value->items} * (is_map ? 2 : 1);
    }
    while (entered > 0 && left[entered - 1] == 0) --entered;
  } while (entered > 0);
  if (first->bytes.empty()) first->bytes = bytes_.subspan(begin, position_ - begin);
  return first;
}

}  // namespace eplbd
