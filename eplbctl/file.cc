// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>

namespace eplbd {
namespace {

[[noreturn]] void fail(const std::string& file, int error) {
  throw std::runtime_error(file + ": " + std::strerror(error));
}

std::string read_all(int descriptor, const std::string& file) {
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t got = ::read(descriptor, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      ::close(descriptor);
      fail(file, error);
    }
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
  }
}

int write_all(int descriptor, std::string_view content) {
  while (!content.empty()) {
    const ssize_t wrote = ::write(descriptor, content.data(), content.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return errno;
    content.remove_prefix(static_cast<size_t>(wrote));
  }
  return 0;
}

}  // namespace

MappedFile::MappedFile(const std::string& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail(file, errno);
  struct stat status {};
  ::fstat(descriptor, &status);
  if (S_ISREG(status.st_mode) && status.st_size > 0) {
    const auto size = static_cast<size_t>(status.st_size);
    void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (mapping != MAP_FAILED) {
      mapping_ = mapping;
      bytes_ = {static_cast<const std::byte*>(mapping), size};
      ::close(descriptor);
      return;
    }
  }
  copy_ = read_all(descriptor, file);
  bytes_ = std::as_bytes(std::span(copy_.data(), copy_.size()));
  ::close(descriptor);
}

MappedFile::~MappedFile() {
  if (mapping_ != nullptr) ::munmap(mapping_, bytes_.size());
}

void write_file(const std::string& file, std::string_view content, unsigned mode) {
  if (file == "-") {
    const int error = write_all(STDOUT_FILENO, content);
    if (error != 0) fail("standard output", error);
    return;
  }
  struct stat status {};
  const bool special = ::stat(file.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
  const std::string target = special ? file : file + ".tmp" + std::to_string(::getpid());
  const int flags = O_WRONLY | O_CLOEXEC | (special ? 0 : O_CREAT | O_EXCL);
  const int descriptor = ::open(target.c_str(), flags, mode);
  if (descriptor < 0) fail(file, errno);
  int error = write_all(descriptor, content);
  if (error == 0 && !special && ::fsync(descriptor) != 0) error = errno;
  if (::close(descriptor) != 0 && error == 0) error = errno;
  if (error == 0 && !special && std::rename(target.c_str(), file.c_str()) != 0) error = errno;
  if (error != 0) {
    if (!special) ::unlink(target.c_str());
    fail(file, error);
  }
}

}  // namespace eplbd
