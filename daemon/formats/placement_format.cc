// SPDX-License-Identifier: Apache-2.0
#include "daemon/formats/placement_format.h"

#include <algorithm>
#include <array>
#include <span>
#include <stdexcept>
#include <vector>

#include "daemon/formats/npy.h"

namespace eplbd {
namespace {

void append_list(std::string& text, std::span<const int32_t> values) {
  text += '[';
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(values[i]);
  }
  text += ']';
}

// SGLang counts every layer of the model.
std::string format_json(const Topology& topology, const Placement& placement) {
  int32_t rows = topology.layers;
  for (const int32_t id : topology.layer_ids) rows = std::max(rows, id + 1);
  std::vector<int32_t> layer_of(rows, -1);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    layer_of[topology.layer_id(layer)] = layer;
  }
  const Placement initial = Placement::initial(topology);
  std::string text = "{\"physical_to_logical_map\": [";
  for (int32_t row = 0; row < rows; ++row) {
    text += row > 0 ? ",\n" : "\n";
    append_list(text, layer_of[row] < 0 ? initial.layer(0) : placement.layer(layer_of[row]));
  }
  return text + "\n]}\n";
}

std::string format_trtllm(const Topology& topology, const Placement& placement) {
  std::string text = "num_slots: " + std::to_string(topology.slots) +
                     "\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n";
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    text += "  " + std::to_string(topology.layer_id(layer)) + ": ";
    append_list(text, placement.layer(layer));
    text += '\n';
  }
  return text;
}

// layer_id counts MoE layers from 0.
std::string format_vllm_ascend(const Topology& topology, const Placement& placement) {
  std::string text =
      "{\"moe_layer_count\": " + std::to_string(topology.layers) + ", \"layer_list\": [";
  const auto width = static_cast<size_t>(topology.slots_per_gpu());
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    text += (layer > 0 ? ",\n" : "\n");
    text += "{\"layer_id\": " + std::to_string(layer) +
            ", \"device_count\": " + std::to_string(topology.gpus) + ", \"device_list\": [";
    for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) {
      text += gpu > 0 ? ",\n " : "\n ";
      text += "{\"device_id\": " + std::to_string(gpu) + ", \"device_expert\": ";
      append_list(text, placement.layer(layer).subspan(gpu * width, width));
      text += '}';
    }
    text += "]}";
  }
  return text + "\n]}\n";
}

std::string format_npy(const Placement& placement) {
  const std::array<int64_t, 2> shape = {placement.layers(), placement.slots()};
  std::string text = npy_header(NpyType::int32, shape);
  text.append(reinterpret_cast<const char*>(placement.map().data()),
              placement.map().size() * sizeof(int32_t));
  return text;
}

}  // namespace

std::string format_placement(const Topology& topology, const Placement& placement,
                             PlacementFormat format) {
  if (format == PlacementFormat::npy) return format_npy(placement);
  const auto& map = placement.map();
  if (std::find(map.begin(), map.end(), kNoExpert) != map.end()) {
    throw std::runtime_error("a GPU that is down holds nothing, which the format " +
                             std::string(to_string(format)) +
                             " cannot say: restore the GPU first, or take npy");
  }
  switch (format) {
    case PlacementFormat::trtllm:
      return format_trtllm(topology, placement);
    case PlacementFormat::vllm_ascend:
      return format_vllm_ascend(topology, placement);
    case PlacementFormat::json:
    case PlacementFormat::npy:
      break;
  }
  return format_json(topology, placement);
}

}  // namespace eplbd
