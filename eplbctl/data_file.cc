// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/data_file.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "eplbctl/table.h"
#include "eplbctl/unpack.h"

namespace eplbd {
namespace {

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

// Kinds that are met and not read: how they begin, what they are, how to convert them.
constexpr std::pair<std::string_view, std::string_view> kUnread[] = {
    {"\x80",
     "a pickle (PyTorch wrote such .pt files before 1.6); convert it: "
     "python3 -m eplbd convert FILE.pt FILE.npy"},
    {"PAR1",
     "Parquet; convert it: python3 -c \"import pandas; "
     "pandas.read_parquet('FILE').to_csv('FILE.csv', index=False)\""},
    {"\x89HDF",
     "HDF5; convert it: python3 -c \"import h5py, numpy; "
     "numpy.save('FILE.npy', h5py.File('FILE')['NAME'])\""},
    {"\x28\xb5\x2f\xfd", "packed by zstd; unpack it: zstd -d FILE"},
    {"\xfd"
     "7zXZ",
     "packed by xz; unpack it: xz -d FILE"},
    {"BZh", "packed by bzip2; unpack it: bzip2 -d FILE"},
};

std::string_view line_of(std::string_view& text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  return line;
}

// Whether its first line is a whole value, and another one follows.
bool is_lines(std::string_view text) {
  std::string_view first = line_of(text);
  const size_t end = first.find_last_not_of(" \t\r");
  const char last = end == std::string_view::npos ? ' ' : first[end];
  const size_t next = text.find_first_not_of(" \t\r\n");
  return (last == '}' || last == ']') && next != std::string_view::npos &&
         (text[next] == '{' || text[next] == '[');
}

DataKind kind_of(std::string_view text) {
  if (text.starts_with("\x93NUMPY")) return DataKind::npy;
  for (const auto& [begin, what] : kUnread) {
    if (text.starts_with(begin)) fail("it is " + std::string(what));
  }
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) fail("it is empty");
  text.remove_prefix(first);
  if (text.front() == '{' || text.front() == '[') {
    return is_lines(text) ? DataKind::json_lines : DataKind::json;
  }
  if (text.substr(0, 4096).find('\0') != std::string_view::npos) {
    fail("it is binary, and neither .npy, .npz nor gzip");
  }
  return looks_like_table(text) ? DataKind::table : DataKind::other_text;
}

}  // namespace

DataFile::DataFile(const std::string& file) : file_(file) {
  try {
    if (text().starts_with("\x1f\x8b")) unpacked_ = gunzip(text());
    if (text().starts_with("PK\3\4")) unpacked_ = npz_array(text());
    if (unpacked_.empty() && (text().starts_with("\x1f\x8b") || text().starts_with("PK\3\4"))) {
      fail("it is empty");
    }
    kind_ = kind_of(text());
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(file + ": " + error.what());
  }
}

}  // namespace eplbd
