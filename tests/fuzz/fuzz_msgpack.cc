// libFuzzer: our MessagePack reader against msgpack-cxx.
// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/msgpack_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  eplbd::check_msgpack(std::as_bytes(std::span(data, size)));
  return 0;
}
