// `eplbctl keygen`: CURVE key pairs, two files each.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace eplbd {

struct KeygenOptions {
  std::string name;                  // NAME.key (mode 0600) and NAME.pub are written
  std::vector<std::string> sources;  // a worker's: for which it may speak
  bool observer = false;             // may only subscribe
  int32_t workers = 0;  // NAME0, NAME1, ...: each may speak for the source of its file's name
};

// Refuses to overwrite any file; then it writes none.
int run_keygen(const KeygenOptions& options);

}  // namespace eplbd
