// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

namespace eplbd {

// The first `most` bytes of a file that an operator names. Never waits: what is no file with bytes
// in it (a pipe, a device, a folder) is refused. Throws std::runtime_error saying why.
std::string read_regular_file(const std::string& path, size_t most);

}  // namespace eplbd
