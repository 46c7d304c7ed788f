// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/trace_writer.h"

#include <catch2/catch.hpp>
#include <cstdio>

#include "eplbctl/trace_file.h"
#include "tests/eplbctl/temporary_file.h"

namespace eplbd {
namespace {

std::vector<double> firsts(const std::string& file) {
  const TraceFile trace(file);
  std::vector<double> values;
  std::vector<double> counts(trace.cells());
  for (int64_t step = 0; step < trace.steps(); ++step) {
    trace.read_step(step, counts);
    values.push_back(counts[0]);
  }
  return values;
}

TEST_CASE("a recording can be read after every step, a ring keeps the last ones in order") {
  for (const int64_t keep : {int64_t{0}, int64_t{3}, int64_t{10}}) {
    const TemporaryFile reserved("");
    const std::string file = reserved.name() + ".npy";
    {
      TraceWriter writer(file, 2, 3, keep);
      for (uint32_t step = 1; step <= 7; ++step) {
        writer.append(std::vector<uint32_t>{step, 0, 0, 0, 0, step});
        const auto kept = keep == 0 ? step : std::min<int64_t>(step, keep);
        CHECK(firsts(file).size() == static_cast<size_t>(kept));
      }
      writer.finish();
    }
    const std::vector<double> all = {1, 2, 3, 4, 5, 6, 7};
    CHECK(firsts(file) == (keep == 3 ? std::vector<double>{5, 6, 7} : all));
    CHECK_THROWS_WITH(TraceWriter(file, 2, 3, 0), Catch::Contains("never overwritten"));
    std::remove(file.c_str());
  }
}

}  // namespace
}  // namespace eplbd
