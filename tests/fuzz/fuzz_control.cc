// libFuzzer: orders to a running daemon: "PATH body". It answers each, with a status that is one.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>

#include "tests/daemon/running.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace eplbd;
  static const Folder folder;
  static Running daemon(folder);
  const std::string text(reinterpret_cast<const char*>(data), size);
  const size_t space = text.find(' ');
  if (space == std::string::npos) return 0;
  std::string path;
  for (const char c : text.substr(0, space)) {
    if (c >= 'a' && c <= 'z') path += c;
  }
  const int status =
      HttpPeer(folder / "control.sock").post("/v1/" + path, text.substr(space + 1)).status;
  switch (status) {
    case 200:
    case 400:
    case 404:
    case 409:
    case 413:
    case 503:
      return 0;
    default:
      __builtin_trap();
  }
}
