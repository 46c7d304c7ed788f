// The reader against msgpack-cxx on mutated messages: a short run of what tests/fuzz does at
// length.
// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <random>

#include "daemon/formats/msgpack_map.h"
#include "daemon/formats/wire.h"
#include "tests/fuzz/msgpack_check.h"

using namespace eplbd;

TEST_CASE("the reader sees what the library sees, in mutated messages too") {
  MsgpackMap map;
  map.add("number", -5);
  map.add("large", uint64_t{1} << 63);
  map.add("fraction", 1.25);
  map.add("single", 1.25F);
  map.add("yes", true);
  map.add("nothing", msgpack::type::nil_t());
  map.add("list", std::vector<std::vector<int>>{{1, 2}, {}, {3}});
  map.add_binary("bytes", "\1\2\3");
  const std::string whole = map.finish();
  check_msgpack(as_bytes(whole));
  std::mt19937 random(3);
  for (int round = 0; round < 200'000; ++round) {
    std::string bytes = whole;
    for (uint32_t changes = 1 + random() % 4; changes > 0; --changes) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    check_msgpack(as_bytes(bytes));
  }
  SUCCEED();
}
