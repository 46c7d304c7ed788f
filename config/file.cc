// SPDX-License-Identifier: Apache-2.0
#include "config/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace eplbd {
namespace {

std::string read_bytes(int file, size_t most, Readable may) {
  struct stat status {};
  if (fstat(file, &status) != 0) throw std::runtime_error(std::strerror(errno));
  if (S_ISDIR(status.st_mode)) throw std::runtime_error(std::strerror(EISDIR));
  if (!S_ISREG(status.st_mode)) throw std::runtime_error("not a regular file");
  if (may == Readable::not_by_anybody && (status.st_mode & 07) != 0) {
    throw std::runtime_error("anybody may read this secret: chmod 600 it");
  }
  std::string bytes(most, '\0');
  size_t size = 0;
  while (size < most) {
    const ssize_t got = read(file, bytes.data() + size, most - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw std::runtime_error(std::strerror(errno));
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  bytes.resize(size);
  return bytes;
}

}  // namespace

std::string read_regular_file(const std::string& path, size_t most, Readable may) {
  const int file = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) throw std::runtime_error(std::strerror(errno));
  try {
    std::string bytes = read_bytes(file, most, may);
    close(file);
    return bytes;
  } catch (...) {
    close(file);
    throw;
  }
}

}  // namespace eplbd
