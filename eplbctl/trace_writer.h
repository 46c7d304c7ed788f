// A trace being recorded: a .npy file that is valid after every step, of all steps or of the last
// so many.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace eplbd {

class TraceWriter {
 public:
  // Creates the file, which must not exist. `keep`: steps; 0: all of them. Throws
  // std::runtime_error: FILE: why; so do the others.
  TraceWriter(const std::string& file, int32_t layers, int32_t experts, int64_t keep);
  ~TraceWriter();
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  void append(std::span<const uint32_t> counts);  // [layers, experts]
  // A ring that wrapped is brought into order of time; until then its oldest step may lie inside.
  void finish();

  int64_t steps() const { return steps_; }

 private:
  void write_at(std::span<const std::byte> bytes, int64_t offset);
  void write_header();
  std::string header(int64_t steps) const;

  const std::string file_;
  const int32_t layers_;
  const int32_t experts_;
  const int64_t keep_;
  int descriptor_ = -1;
  int64_t steps_ = 0;  // appended
};

}  // namespace eplbd
