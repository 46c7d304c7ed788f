// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/trace_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "daemon/formats/npy.h"

namespace eplbd {
namespace {

// A header of one size, whatever the number of steps: the data need not move.
constexpr size_t kHeaderBytes = 128;

}  // namespace

TraceWriter::TraceWriter(const std::string& file, int32_t layers, int32_t experts, int64_t keep)
    : file_(file), layers_(layers), experts_(experts), keep_(keep) {
  descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) {
    throw std::runtime_error(file + ": " + std::strerror(errno) +
                             (errno == EEXIST ? ": a recording is never overwritten" : ""));
  }
  write_header();
}

TraceWriter::~TraceWriter() { ::close(descriptor_); }

// npy_header() aligns to 64; the rest of kHeaderBytes is spaces of the same dictionary.
std::string TraceWriter::header(int64_t steps) const {
  const std::array<int64_t, 3> shape = {steps, layers_, experts_};
  std::string text = npy_header(NpyType::uint32, shape);
  const size_t prefix = 10;  // magic, version, length
  text.insert(text.size() - 1, kHeaderBytes - text.size(), ' ');
  text[8] = static_cast<char>(kHeaderBytes - prefix);
  text[9] = 0;
  return text;
}

void TraceWriter::write_at(std::span<const std::byte> bytes, int64_t offset) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::pwrite(descriptor_, bytes.data(), bytes.size(), offset);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) throw std::runtime_error(file_ + ": " + std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(wrote));
    offset += wrote;
  }
}

void TraceWriter::write_header() {
  const std::string text = header(keep_ > 0 ? std::min(keep_, steps_) : steps_);
  write_at(std::as_bytes(std::span(text)), 0);
}

void TraceWriter::append(std::span<const uint32_t> counts) {
  const int64_t row = keep_ > 0 ? steps_ % keep_ : steps_;
  write_at(std::as_bytes(counts),
           static_cast<int64_t>(kHeaderBytes) + row * static_cast<int64_t>(counts.size_bytes()));
  ++steps_;
  if (keep_ == 0 || steps_ <= keep_) write_header();
}

void TraceWriter::finish() {
  if (keep_ == 0 || steps_ <= keep_ || steps_ % keep_ == 0) return;
  const std::string target = file_ + ".sorted";
  TraceWriter sorted(target, layers_, experts_, 0);
  std::vector<uint32_t> row(static_cast<size_t>(layers_) * experts_);
  for (int64_t i = 0; i < keep_; ++i) {
    const int64_t at = (steps_ + i) % keep_;
    const auto bytes = static_cast<int64_t>(row.size() * sizeof(uint32_t));
    const ssize_t got = ::pread(descriptor_, row.data(), static_cast<size_t>(bytes),
                                static_cast<int64_t>(kHeaderBytes) + at * bytes);
    if (got != bytes) throw std::runtime_error(file_ + ": cannot be read back");
    sorted.append(row);
  }
  if (std::rename(target.c_str(), file_.c_str()) != 0) {
    throw std::runtime_error(file_ + ": " + std::strerror(errno));
  }
}

}  // namespace eplbd
