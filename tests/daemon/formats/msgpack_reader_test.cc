// SPDX-License-Identifier: Apache-2.0
#include "daemon/formats/msgpack_reader.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <string>

#include "daemon/formats/msgpack_map.h"
#include "daemon/formats/wire.h"

using namespace eplbd;

namespace {

MsgpackReader reader_of(const std::string& bytes) { return MsgpackReader(as_bytes(bytes)); }

std::string packed(const auto& value) {
  msgpack::sbuffer buffer;
  msgpack::pack(buffer, value);
  return {buffer.data(), buffer.size()};
}

std::string nested_arrays(int depth) {
  return std::string(static_cast<size_t>(depth), '\x91') + "\xc0";
}

}  // namespace

TEST_CASE("every integer that the library writes is read back") {
  std::mt19937_64 random(1);
  for (int bits = 0; bits < 64; ++bits) {
    for (int64_t offset = -2; offset <= 2; ++offset) {
      const uint64_t value = (uint64_t{1} << bits) + static_cast<uint64_t>(offset);
      const auto read = reader_of(packed(value)).next();
      REQUIRE(read);
      CHECK(read->as_uint() == value);
      const auto negative = static_cast<int64_t>(value >> 1) * -1 - 1;
      const auto read_negative = reader_of(packed(negative)).next();
      REQUIRE(read_negative);
      CHECK_FALSE(read_negative->as_uint());
      CHECK(read_negative->as_double() == static_cast<double>(negative));
    }
  }
}

TEST_CASE("a positive number in a signed format is an unsigned one") {
  // Encoders without unsigned types write these.
  const auto read = reader_of(std::string("\xd3\0\0\0\0\0\0\0\x05", 9)).next();
  REQUIRE(read);
  CHECK(read->as_uint() == 5);
}

TEST_CASE("floating point, text and bytes are read back") {
  CHECK(reader_of(packed(1.5)).next()->as_double() == 1.5);
  CHECK(reader_of(packed(1.5F)).next()->as_double() == 1.5);
  CHECK(reader_of(packed(7)).next()->as_double() == 7.0);
  CHECK_FALSE(reader_of(packed(1.5)).next()->as_uint());
  for (const size_t length : {0UL, 1UL, 31UL, 32UL, 255UL, 256UL, 65535UL, 65536UL}) {
    const std::string text(length, 'x');
    const std::string bytes = packed(text);
    auto reader = reader_of(bytes);
    const auto read = reader.next();
    REQUIRE(read);
    CHECK(read->as_string() == text);
    CHECK_FALSE(read->as_binary());
    CHECK(reader.at_end());
  }
}

TEST_CASE("whatever is cut short is not read") {
  MsgpackMap map;
  map.add("text", std::string(300, 'x'));
  map.add("number", uint64_t{1} << 40);
  map.add("list", std::vector<int>{1, 2, 3});
  map.add_binary("binary", std::string(70000, 'y'));
  const std::string whole = map.finish();
  auto reader = reader_of(whole);
  REQUIRE(reader.next_whole(0));
  REQUIRE(reader.at_end());
  for (size_t length = 0; length < whole.size(); length += length < 400 ? 1 : 97) {
    CHECK_FALSE(reader_of(whole.substr(0, length)).next_whole(0));
  }
}

TEST_CASE("four levels are read, five are not") {
  const std::string four = nested_arrays(4);
  const std::string five = nested_arrays(5);
  CHECK(reader_of(four).next_whole(0));
  CHECK_FALSE(reader_of(five).next_whole(0));
  CHECK_FALSE(reader_of(four).next_whole(1));  // one level was entered already
  const std::string bomb(1 << 20, '\x91');
  CHECK_FALSE(reader_of(bomb).next_whole(0));
}

TEST_CASE("a map has 64 keys at most") {
  for (const int keys : {64, 65}) {
    MsgpackMap map;
    for (int i = 0; i < keys; ++i) map.add("k" + std::to_string(i), i);
    const std::string bytes = map.finish();
    CHECK(reader_of(bytes).next_whole(0).has_value() == (keys <= 64));
  }
}

TEST_CASE("a container that claims more than there is, is not read") {
  CHECK_FALSE(reader_of(std::string("\xdd\xff\xff\xff\xff", 5)).next_whole(0));
  CHECK_FALSE(reader_of(std::string("\xc6\xff\xff\xff\xff", 5)).next());
  CHECK_FALSE(reader_of(std::string("\xc1", 1)).next());  // never used
}
