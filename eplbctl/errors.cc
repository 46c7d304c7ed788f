// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/errors.h"

#include <nlohmann/json.hpp>

#include "daemon/version.h"

namespace eplbd {

// Files are read with errors of our own; what is left are answers of a daemon.
std::string words_of(const std::exception& error) {
  if (dynamic_cast<const nlohmann::json::exception*>(&error) == nullptr) return error.what();
  return "the daemon's answer lacks what eplbctl " + std::string(kProgramVersion) +
         " shows: is eplbd of another release? `eplbctl status --json` prints what it says";
}

}  // namespace eplbd
