// Whole files: mapped for reading, written at once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace eplbd {

// A file's bytes, mapped while this lives. Throws std::runtime_error: FILE: why.
class MappedFile {
 public:
  explicit MappedFile(const std::string& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
  }

 private:
  std::string copy_;  // what cannot be mapped: a pipe
  std::span<const std::byte> bytes_;
  void* mapping_ = nullptr;
};

// Writes FILE whole or not at all (a temporary file beside it, renamed); "-" is standard output.
// `mode`: its permissions. Throws std::runtime_error: FILE: why.
void write_file(const std::string& file, std::string_view content, unsigned mode = 0666);

}  // namespace eplbd
