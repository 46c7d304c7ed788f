// A file of numbers as people and engines keep them: unpacked, and its kind told by its content.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "eplbctl/file.h"

namespace eplbd {

enum class DataKind { npy, json, json_lines, table, other_text };

// .npy, the array of a .npz, JSON, JSON Lines, a table (CSV and its like), and gzip of any of them.
class DataFile {
 public:
  // Throws std::runtime_error: FILE: why it cannot be read, or how to convert it.
  explicit DataFile(const std::string& file);

  DataKind kind() const { return kind_; }
  std::string_view text() const { return unpacked_.empty() ? file_.text() : unpacked_; }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(text())); }

 private:
  MappedFile file_;
  std::string unpacked_;  // empty: it is not packed
  DataKind kind_ = DataKind::npy;
};

}  // namespace eplbd
