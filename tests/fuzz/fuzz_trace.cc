// libFuzzer: a trace or load file: .npy, or JSON of several kinds.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "eplbctl/trace_file.h"
#include "tests/eplbctl/temporary_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace eplbd;
  const TemporaryFile file(std::string(reinterpret_cast<const char*>(data), size));
  try {
    const TraceFile trace(file.name());
    if (trace.steps() < 1 || trace.layers() < 1 || trace.experts() < 1) __builtin_trap();
    std::vector<double> step(trace.cells());
    std::vector<uint32_t> counts(trace.cells());
    for (int64_t i = 0; i < trace.steps(); ++i) trace.read_counts(i, step, counts);
    for (const double load : step) {
      if (!std::isfinite(load) || load < 0) __builtin_trap();
    }
  } catch (const std::runtime_error&) {
  }
  return 0;
}
