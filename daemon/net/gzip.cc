// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/gzip.h"

#include <zlib.h>

#include <boost/beast/core/string.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <stdexcept>

namespace eplbd {

namespace beast = boost::beast;

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
  const beast::http::ext_list codings({accept_encoding.data(), accept_encoding.size()});
  for (const auto& [name, parameters] : codings) {
    if (!beast::iequals(name, "gzip")) continue;
    for (const auto& [key, weight] : parameters) {
      if (beast::iequals(key, "q")) return weight.find_first_of("123456789") != weight.npos;
    }
    return true;
  }
  return false;
}

}  // namespace eplbd
