// Whether text that came from outside may be shown in logs, JSON and on a page.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace eplbd {

// Well-formed UTF-8 (RFC 3629: shortest form, no surrogates, up to U+10FFFF) without control
// characters.
constexpr bool is_printable_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i++]);
    if (lead < 0x20 || lead == 0x7f) return false;
    if (lead < 0x80) continue;
    const int more = lead >= 0xc2 && lead <= 0xdf   ? 1
                     : (lead & 0xf0) == 0xe0        ? 2
                     : lead >= 0xf0 && lead <= 0xf4 ? 3
                                                    : 0;
    if (more == 0 || text.size() - i < static_cast<size_t>(more)) return false;
    uint32_t code = lead & (0x3fU >> more);
    for (int k = 0; k < more; ++k) {
      const auto next = static_cast<uint8_t>(text[i++]);
      if ((next & 0xc0) != 0x80) return false;
      code = code << 6 | (next & 0x3fU);
    }
    const bool too_short = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
    const bool surrogate = code >= 0xd800 && code <= 0xdfff;
    const bool control = code >= 0x80 && code < 0xa0;
    if (too_short || surrogate || control || code > 0x10ffff) return false;
  }
  return true;
}

// Any text as one line of at most `most` bytes that may be shown: white space becomes a space,
// other bytes that is_printable_utf8() refuses a question mark. Else whoever sends it could write
// log lines of his own, or steer a terminal.
inline std::string printable_line(std::string_view text, size_t most) {
  std::string line;
  for (size_t i = 0, length = 1; i < text.size(); i += length) {
    length = 1;
    while (length < 4 && !is_printable_utf8(text.substr(i, length))) ++length;
    std::string_view shown = text.substr(i, length);
    if (!is_printable_utf8(shown)) {
      length = 1;
      shown = text[i] == '\n' || text[i] == '\t' || text[i] == '\r' ? " " : "?";
    }
    if (line.size() + shown.size() > most) return line + "...";
    line += shown;
  }
  return line;
}

}  // namespace eplbd
