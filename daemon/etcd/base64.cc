// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/base64.h"

#include <openssl/evp.h>

#include <limits>

namespace eplbd {
namespace {

const unsigned char* as_unsigned(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}
unsigned char* as_unsigned(std::string& text) {
  return reinterpret_cast<unsigned char*>(text.data());
}

}  // namespace

std::string to_base64(std::string_view bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // a zero comes behind it
  const int size =
      EVP_EncodeBlock(as_unsigned(text), as_unsigned(bytes), static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(size));
  return text;
}

std::optional<std::string> from_base64(std::string_view text) {
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  if (text.size() % 4 != 0 || text.size() > std::numeric_limits<int>::max() ||
      text.find('=') < text.size() - padding) {
    return {};
  }
  std::string bytes(text.size() / 4 * 3, '\0');
  const int size =
      EVP_DecodeBlock(as_unsigned(bytes), as_unsigned(text), static_cast<int>(text.size()));
  if (size != static_cast<int>(bytes.size())) return {};  // spaces around it are none of it either
  bytes.resize(bytes.size() - padding);
  return bytes;
}

}  // namespace eplbd
