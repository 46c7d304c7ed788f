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

std::optional<MsgpackValue> MsgpackReader::tagged(uint8_t tag) {
  MsgpackValue value;
  switch (tag) {
    case 0xc0:
      return value;
    case 0xc2:
    case 0xc3:
      value.type = MsgpackType::boolean;
      value.integer = tag & 1U;
      return value;
    case 0xc4:
      return blob(MsgpackType::binary, big_endian(1));
    case 0xc5:
      return blob(MsgpackType::binary, big_endian(2));
    case 0xc6:
      return blob(MsgpackType::binary, big_endian(4));
    case 0xc7:
      return blob(MsgpackType::extension, big_endian(1));
    case 0xc8:
      return blob(MsgpackType::extension, big_endian(2));
    case 0xc9:
      return blob(MsgpackType::extension, big_endian(4));
    case 0xca:
      return floating(4);
    case 0xcb:
      return floating(8);
    case 0xcc:
      return integer(1, false);
    case 0xcd:
      return integer(2, false);
    case 0xce:
      return integer(4, false);
    case 0xcf:
      return integer(8, false);
    case 0xd0:
      return integer(1, true);
    case 0xd1:
      return integer(2, true);
    case 0xd2:
      return integer(4, true);
    case 0xd3:
      return integer(8, true);
    case 0xd4:
      return blob(MsgpackType::extension, 1);
    case 0xd5:
      return blob(MsgpackType::extension, 2);
    case 0xd6:
      return blob(MsgpackType::extension, 4);
    case 0xd7:
      return blob(MsgpackType::extension, 8);
    case 0xd8:
      return blob(MsgpackType::extension, 16);
    case 0xd9:
      return blob(MsgpackType::string, big_endian(1));
    case 0xda:
      return blob(MsgpackType::string, big_endian(2));
    case 0xdb:
      return blob(MsgpackType::string, big_endian(4));
    case 0xdc:
      return container(MsgpackType::array, big_endian(2));
    case 0xdd:
      return container(MsgpackType::array, big_endian(4));
    case 0xde:
      return container(MsgpackType::map, big_endian(2));
    case 0xdf:
      return container(MsgpackType::map, big_endian(4));
    default:
      return std::nullopt;  // 0xc1: never used
  }
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
  do {
    const auto value = next();
    if (!value) return std::nullopt;
    if (!first) first = value;
    if (entered > 0) --left[entered - 1];
    const bool is_map = value->type == MsgpackType::map;
    if (is_map || value->type == MsgpackType::array) {
      if (depth + entered >= kMsgpackMaxDepth) return std::nullopt;
      if (is_map && value->items > kMsgpackMaxKeys) return std::nullopt;
      left[entered++] = uint64_t{value->items} * (is_map ? 2 : 1);
    }
    while (entered > 0 && left[entered - 1] == 0) --entered;
  } while (entered > 0);
  return first;
}

}  // namespace eplbd
