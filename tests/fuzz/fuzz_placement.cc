// libFuzzer: a placement file in any of the engines' formats. What is taken is written and read as
// the same.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <stdexcept>
#include <string>

#include "eplbctl/placement_file.h"
#include "tests/eplbctl/temporary_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace eplbd;
  static const Topology topology{.layers = 2,
                                 .logical_experts = 3,
                                 .slots = 4,
                                 .gpus = 2,
                                 .layer_ids = {1, 2},
                                 .gpu_speeds = {}};
  const TemporaryFile file(std::string(reinterpret_cast<const char*>(data), size));
  std::optional<Placement> placement;
  try {
    placement = read_placement(file.name(), topology);
  } catch (const std::runtime_error&) {
    return 0;
  }
  for (const auto format : {PlacementFormat::json, PlacementFormat::trtllm,
                            PlacementFormat::vllm_ascend, PlacementFormat::npy}) {
    const TemporaryFile written(format_placement(topology, *placement, format));
    if (!(read_placement(written.name(), topology) == *placement)) __builtin_trap();
  }
  return 0;
}
