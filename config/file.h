// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

namespace eplbd {

enum class Readable { by_anybody, not_by_anybody };  // the latter: secrets

// The first `most` bytes of a file that an operator names. Never waits: what is no file with bytes
// in it (a pipe, a device, a folder) is refused, and so is a secret that anybody may read. Throws
// std::runtime_error saying why.
std::string read_regular_file(const std::string& path, size_t most,
                              Readable may = Readable::by_anybody);

}  // namespace eplbd
