// libFuzzer: the text of a configuration. What is taken is printed, and then read as the same.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>

#include "config/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace eplbd;
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::string printed;
  try {
    printed = print_config(parse_config(text, "fuzz"));
  } catch (const ConfigError& error) {
    if (error.problems().empty()) __builtin_trap();
    return 0;
  }
  if (print_config(parse_config(printed, "printed")) != printed) __builtin_trap();
  return 0;
}
