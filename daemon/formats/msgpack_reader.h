// A forward reader of MessagePack bytes that never allocates, recurses or throws: for input that
// nobody vouches for. Values are views into the bytes. Format: msgpack/spec.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace eplbd {

inline constexpr int kMsgpackMaxDepth = 4;       // containers inside each other
inline constexpr uint32_t kMsgpackMaxKeys = 64;  // of one map

enum class MsgpackType {
  nil,
  boolean,
  unsigned_integer,
  negative_integer,
  floating,
  string,
  binary,
  array,
  map,
  extension
};

struct MsgpackValue {
  MsgpackType type = MsgpackType::nil;
  uint64_t integer = 0;  // unsigned_integer, boolean; negative_integer: two's complement
  double floating = 0;   // floating
  uint32_t items = 0;    // array: elements; map: pairs
  std::span<const std::byte> bytes;  // string, binary, extension; a whole container's elements

  // The value as what the caller needs, or nothing when it is something else. Integers are taken
  // from any integer format; a number with a fraction is taken from integers too, as some
  // encoders write 5.0 as 5.
  std::optional<uint64_t> as_uint() const;
  std::optional<double> as_double() const;
  std::optional<std::string_view> as_string() const;
  std::optional<std::span<const std::byte>> as_binary() const;
};

class MsgpackReader {
 public:
  explicit MsgpackReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  // The next token; of a container its header only: its elements follow. Nothing at the end of the
  // bytes, or when they are no MessagePack.
  std::optional<MsgpackValue> next();

  // As next(), and steps over the elements of a container. Nothing, too, when it nests deeper than
  // the bound or a map in it has too many keys. `depth`: containers already entered.
  std::optional<MsgpackValue> next_whole(int depth);

  bool at_end() const { return position_ == bytes_.size(); }

 private:
  std::optional<uint64_t> big_endian(size_t width);
  std::optional<MsgpackValue> integer(size_t width, bool is_signed);
  std::optional<MsgpackValue> floating(size_t width);
  std::optional<MsgpackValue> blob(MsgpackType type, std::optional<uint64_t> length);
  std::optional<MsgpackValue> container(MsgpackType type, std::optional<uint64_t> items);
  std::optional<MsgpackValue> tagged(uint8_t tag);

  std::span<const std::byte> bytes_;
  size_t position_ = 0;
};

}  // namespace eplbd
