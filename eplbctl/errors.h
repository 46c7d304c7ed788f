// How commands fail: exit 0 done, 1 refused or failed (any exception), 2 usage (this one).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>
#include <string>

namespace eplbd {

// The command line asks for something impossible.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// For people: what a library says of its own insides is no help to them.
std::string words_of(const std::exception& error);

}  // namespace eplbd
