// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace eplbd {

// As `Content-Encoding: gzip` has it (RFC 1952), at zlib's fastest: it runs on the loop.
std::string gzip(std::string_view text);

// Whether an Accept-Encoding header allows it (RFC 9110, 12.5.3).
bool accepts_gzip(std::string_view accept_encoding);

}  // namespace eplbd
