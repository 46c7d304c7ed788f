// A load or trace file: tokens of each logical expert, a step or many. Contract: docs/eplbctl.md,
// "Load and trace files".
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace eplbd {

// Reads .npy ([layers, experts] or [steps, layers, experts], mapped, not copied: a trace of days
// needs no memory), .npz, JSON (the ADRS benchmark's load_history, SGLang's logical_count, nested
// lists), JSON Lines (a step each), tables (table.h), and gzip of any. All values are checked when
// it is opened.
class TraceFile {
 public:
  // Throws std::runtime_error: FILE: what is wrong and where.
  explicit TraceFile(const std::string& file);
  ~TraceFile();
  TraceFile(TraceFile&&) noexcept;

  int64_t steps() const;  // 1 for a load without steps
  int32_t layers() const;
  int32_t experts() const;
  size_t cells() const { return static_cast<size_t>(layers()) * experts(); }

  // Counts of one step [layers, experts]. Requires: 0 <= step < steps().
  void read_step(int64_t step, std::span<double> counts) const;
  // The same as to_counts() makes them, by way of `loads`. Throws what it does, with FILE and step.
  void read_counts(int64_t step, std::span<double> loads, std::span<uint32_t> counts) const;
  std::vector<double> sum() const;  // [layers, experts] over all steps

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The counts of one step as a counts message carries them. Fractions are rounded. Throws
// std::runtime_error where one is too large for 32 bits, or when rounding loses the load.
void to_counts(std::span<const double> step, std::span<uint32_t> counts);

}  // namespace eplbd
