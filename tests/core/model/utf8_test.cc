// SPDX-License-Identifier: Apache-2.0
#include "core/model/utf8.h"

#include <catch2/catch.hpp>

namespace eplbd {
namespace {

TEST_CASE("Printable is well-formed UTF-8 without control characters", "[utf8]") {
  for (const char* good : {"", "dp0", "Größe", "€", "𝕏", "\xe4\xb8\xad", "\xf0\x9f\x98\x80",
                           "\xF4\x8F\xBF\xBF", "\xEF\xBB\xBF", "\xc2\xa0"}) {
    CHECK(is_printable_utf8(good));
  }
  for (const char* bad : {"\x01", "\t", "\x7f", "\x80", "\xc0\x80", "\xc0\xaf", "\xc3",
                          "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
                          "\xf8\x88\x80\x80\x80", "\xff", "\xe4\xb8", "\xc2\x85", "a\xe2\x82"}) {
    CHECK_FALSE(is_printable_utf8(bad));
  }
}

TEST_CASE("The first byte that may not be shown is found", "[utf8]") {
  CHECK(find_unprintable("abc\xff") == 3);
  CHECK(find_unprintable("ä\tb\r\n") == 2);
  CHECK(find_unprintable("ä\tb\r\n", "\t\r\n") == 6);
  CHECK(find_unprintable("ä\tb\x1b", "\t\r\n") == 4);
}

TEST_CASE("Any text becomes one printable line", "[utf8]") {
  CHECK(printable_line("a\tb\r\nc", 100) == "a b  c");
  CHECK(printable_line("\x1b\x7f\xff", 100) == "???");
  CHECK(printable_line("\xc2\x9b", 100) == "??");  // CSI
  CHECK(printable_line("Grüße € 🙂", 100) == "Grüße € 🙂");
  CHECK(printable_line("\xc3", 100) == "?");
  CHECK(printable_line("abü", 3) == "ab...");
}

}  // namespace
}  // namespace eplbd
