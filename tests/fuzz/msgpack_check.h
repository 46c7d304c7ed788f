// Our reader against msgpack-cxx, on the same bytes: what one takes the other takes, and both see
// the same values.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#define MSGPACK_NO_BOOST
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <msgpack.hpp>
#include <span>

#include "daemon/formats/msgpack_reader.h"

namespace eplbd {

inline void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "the reader and msgpack-cxx differ: %s\n", what);
  std::abort();
}

// Whether the bounds of our reader admit what the library parsed.
inline bool in_bounds(const msgpack::object& object, int depth = 0) {
  if (object.type == msgpack::type::ARRAY) {
    if (depth >= kMsgpackMaxDepth) return false;
    for (const msgpack::object& item : object.via.array) {
      if (!in_bounds(item, depth + 1)) return false;
    }
  } else if (object.type == msgpack::type::MAP) {
    if (depth >= kMsgpackMaxDepth || object.via.map.size > kMsgpackMaxKeys) return false;
    for (const auto& pair : object.via.map) {
      if (!in_bounds(pair.key, depth + 1) || !in_bounds(pair.val, depth + 1)) return false;
    }
  }
  return true;
}

inline void require_same(MsgpackReader& reader, const msgpack::object& object) {
  const auto value = reader.next();
  require(value.has_value(), "a value is missing");
  const auto same_bytes = [&](const char* data, size_t size) {
    require(value->bytes.size() == size &&
                (size == 0 || std::memcmp(value->bytes.data(), data, size) == 0),
            "bytes");
  };
  switch (object.type) {
    case msgpack::type::NIL:
      return require(value->type == MsgpackType::nil, "nil");
    case msgpack::type::BOOLEAN:
      require(value->type == MsgpackType::boolean, "boolean");
      return require((value->integer != 0) == object.via.boolean, "boolean");
    case msgpack::type::POSITIVE_INTEGER:
      return require(value->as_uint() == object.via.u64, "unsigned integer");
    case msgpack::type::NEGATIVE_INTEGER:
      require(value->type == MsgpackType::negative_integer, "negative integer");
      return require(static_cast<int64_t>(value->integer) == object.via.i64, "negative integer");
    case msgpack::type::FLOAT32:
    case msgpack::type::FLOAT64: {
      require(value->type == MsgpackType::floating, "floating point");
      const double ours = value->floating;
      return require(ours == object.via.f64 || (ours != ours && object.via.f64 != object.via.f64),
                     "floating point");
    }
    case msgpack::type::STR:
      require(value->type == MsgpackType::string, "string");
      return same_bytes(object.via.str.ptr, object.via.str.size);
    case msgpack::type::BIN:
      require(value->type == MsgpackType::binary, "binary");
      return same_bytes(object.via.bin.ptr, object.via.bin.size);
    case msgpack::type::EXT:
      require(value->type == MsgpackType::extension, "extension");
      return same_bytes(object.via.ext.data(), object.via.ext.size);
    case msgpack::type::ARRAY:
      require(value->type == MsgpackType::array && value->items == object.via.array.size, "array");
      for (const msgpack::object& item : object.via.array) require_same(reader, item);
      return;
    case msgpack::type::MAP:
      require(value->type == MsgpackType::map && value->items == object.via.map.size, "map");
      for (const auto& pair : object.via.map) {
        require_same(reader, pair.key);
        require_same(reader, pair.val);
      }
      return;
  }
}

// Aborts where they differ.
inline void check_msgpack(std::span<const std::byte> bytes) {
  constexpr size_t kItems = 1 << 16;  // the library would allocate what a header claims
  msgpack::object_handle handle;
  bool parsed = false;
  size_t used = 0;
  try {
    msgpack::unpack(handle, reinterpret_cast<const char*>(bytes.data()), bytes.size(), used,
                    nullptr, nullptr,
                    msgpack::unpack_limit(kItems, kItems, 1 << 24, 1 << 24, 1 << 24, 32));
    parsed = true;
  } catch (const msgpack::size_overflow&) {
    return;  // past the library's limits here, ours may differ
  } catch (const msgpack::unpack_error&) {
  }
  MsgpackReader whole(bytes);
  const bool taken = whole.next_whole(0).has_value();
  require(taken == (parsed && in_bounds(handle.get())), "one takes it, the other does not");
  if (!taken) return;
  MsgpackReader reader(bytes);
  require_same(reader, handle.get());
  require(reader.at_end() == (used == bytes.size()), "where it ends");
}

}  // namespace eplbd
