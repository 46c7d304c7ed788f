// CURVE keys in files: Z85 text of 40 characters on a line of its own; lines that begin with "# "
// are comments.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace eplbd {

// The first key of a file; what may follow it on its line (a role, in authorized keys) is left out.
// Throws std::runtime_error: FILE: what is wrong.
std::string read_key(const std::string& file);

std::string public_key_of(const std::string& secret_key);

struct KeyPair {
  std::string public_key;
  std::string secret_key;
};
// Throws std::runtime_error where libzmq has no CURVE.
KeyPair make_key_pair();

}  // namespace eplbd
