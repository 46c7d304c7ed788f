// Text that came from outside: whether it may be shown in logs, JSON and on a page.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace eplbd {

inline constexpr size_t kMaxNameBytes = 128;  // of a deployment, an engine or a source, in UTF-8

// Bytes of the character that `text` begins with; 0 where that is not well-formed UTF-8 (RFC 3629:
// shortest form, no surrogates, up to U+10FFFF), or a control character. Requires: not empty.
constexpr size_t printable_length(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text[0]);
  if (lead < 0x80) return lead < 0x20 || lead == 0x7f ? 0 : 1;
  const size_t more = lead >= 0xc2 && lead <= 0xdf   ? 1
                      : (lead & 0xf0) == 0xe0        ? 2
                      : lead >= 0xf0 && lead <= 0xf4 ? 3
                                                     : 0;
  if (more == 0 || text.size() <= more) return 0;
  uint32_t code = lead & (0x3fU >> more);
  for (size_t i = 1; i <= more; ++i) {
    const auto next = static_cast<uint8_t>(text[i]);
    if ((next & 0xc0) != 0x80) return 0;
    code = code << 6 | (next & 0x3fU);
  }
  const bool too_short = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  const bool control = code < 0xa0;
  return too_short || surrogate || control || code > 0x10ffff ? 0 : 1 + more;
}

// Where `text` stops being printable UTF-8, characters of `allowed` aside; its size: nowhere.
constexpr size_t find_unprintable(std::string_view text, std::string_view allowed = {}) {
  size_t i = 0;
  while (i < text.size()) {
    const size_t length = printable_length(text.substr(i));
    if (length == 0 && allowed.find(text[i]) == allowed.npos) break;
    i += length == 0 ? 1 : length;
  }
  return i;
}

constexpr bool is_printable_utf8(std::string_view text) {
  return find_unprintable(text) == text.size();
}

// Any text as one line of at most `most` bytes that may be shown: white space becomes a space,
// other bytes that are not printable a question mark. Else whoever sends it could write log lines
// of his own, or steer a terminal.
inline std::string printable_line(std::string_view text, size_t most) {
  std::string line;
  for (size_t i = 0; i < text.size();) {
    const size_t length = printable_length(text.substr(i));
    const bool space = text[i] == '\n' || text[i] == '\t' || text[i] == '\r';
    const std::string_view shown = length > 0 ? text.substr(i, length) : space ? " " : "?";
    if (line.size() + shown.size() > most) return line + "...";
    line += shown;
    i += length == 0 ? 1 : length;
  }
  return line;
}

}  // namespace eplbd
