// Placements in the formats that engines read.
//   json          SGLang --init-expert-location: {"physical_to_logical_map": [[slots] layers]}
//   trtllm        TensorRT-LLM load balancer YAML: num_slots, initial_global_assignments
//   vllm-ascend   expert_map.json: layer_list, device_list, device_expert
//   npy           int32 [layers, slots]
// SGLang's file has a row for every layer of the model and TensorRT-LLM's keys are the model's
// layer numbers: layer_ids decide; json has the initial placement in rows that are no MoE layer.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "core/model/names.h"
#include "core/model/placement.h"
#include "core/model/topology.h"

namespace eplbd {

enum class PlacementFormat { json, trtllm, vllm_ascend, npy };
constexpr auto names(PlacementFormat) {
  return std::to_array<std::string_view>({"json", "trtllm", "vllm-ascend", "npy"});
}

// The file's content. Throws std::runtime_error when a GPU that holds nothing cannot be said: only
// npy can, with -1.
std::string format_placement(const Topology& topology, const Placement& placement,
                             PlacementFormat format);

}  // namespace eplbd
