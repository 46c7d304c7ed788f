// `eplbctl keygen`: a CURVE key pair as two files.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace eplbd {

struct KeygenOptions {
  std::string name;                  // NAME.key (mode 0600) and NAME.pub are written
  std::vector<std::string> sources;  // a worker's: for which it may speak
  bool observer = false;             // may only subscribe
};

// Refuses to overwrite either file.
int run_keygen(const KeygenOptions& options);

}  // namespace eplbd
