// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <stdexcept>

namespace eplbd {

std::string gzip(std::string_view text) {
  constexpr int kGzipWindowBits = 15 + 16;  // the largest window, and gzip's frame
  constexpr int kMemoryLevel = 8;           // zlib's default
  z_stream stream{};
  if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, kGzipWindowBits, kMemoryLevel,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::runtime_error("no memory to compress an answer");
  }
  std::string packed(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);  // in one go: there is room for the worst case
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

bool accepts_gzip(std::string_view accept_encoding) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!accept_encoding.empty()) {
    std::string one;
    const std::string_view item = accept_encoding.substr(0, accept_encoding.find(','));
    accept_encoding.remove_prefix(std::min(accept_encoding.size(), item.size() + 1));
    for (const char c : item) {
      if (!blank(c)) one += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    const std::string_view name = std::string_view(one).substr(0, one.find(';'));
    if (name != "gzip") continue;
    const size_t weight = one.find(";q=");
    return weight == std::string::npos ||
           one.find_first_of("123456789", weight) != std::string::npos;
  }
  return false;
}

}  // namespace eplbd
