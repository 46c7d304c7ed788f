// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/placement_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "daemon/formats/npy.h"
#include "eplbctl/data_file.h"
#include "eplbctl/errors.h"
#include "eplbctl/nested_list.h"
#include "eplbctl/table.h"

namespace eplbd {
namespace {

using nlohmann::json;

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

int32_t to_id(double value) {
  if (std::trunc(value) != value || value < INT32_MIN || value > INT32_MAX) {
    fail("an expert's number expected, found " + std::to_string(value));
  }
  return static_cast<int32_t>(value);
}

// Rows of MoE layers, or of all layers of the model, of which layer_ids chooses.
std::vector<int32_t> from_rows(const NestedList& list, const Topology& topology) {
  const int64_t rows = list.shape[0];
  const int64_t slots = list.shape[1];
  if (slots != topology.slots) {
    fail("it has " + std::to_string(slots) + " slots a layer, not " +
         std::to_string(topology.slots));
  }
  const auto highest = std::max_element(topology.layer_ids.begin(), topology.layer_ids.end());
  const bool all_layers = highest != topology.layer_ids.end() && rows == *highest + 1;
  if (rows != topology.layers && !all_layers) {
    fail("it has " + std::to_string(rows) + " layers, not " + std::to_string(topology.layers));
  }
  std::vector<int32_t> map;
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const int64_t row = rows == topology.layers ? layer : topology.layer_id(layer);
    for (int64_t slot = 0; slot < slots; ++slot) {
      map.push_back(to_id(list.values[static_cast<size_t>(row * slots + slot)]));
    }
  }
  return map;
}

std::vector<int32_t> from_npy(const DataFile& file, const Topology& topology) {
  const NpyHeader header = read_npy_header(file.bytes());
  if (header.shape.size() != 2) fail("a placement has two dimensions, [layers, slots]");
  NestedList list{header.shape, {}};
  for (int64_t i = 0; i < header.elements(); ++i) {
    list.values.push_back(npy_element(header, file.bytes(), i));
  }
  return from_rows(list, topology);
}

const json& member(const json& object, const char* key, const std::string& place) {
  if (!object.is_object() || !object.contains(key)) fail(place + " has no " + key);
  return object[key];
}

// What a file says beside its map must be true of it.
void check_said(const json& object, const char* key, size_t is, const std::string& place) {
  if (object.contains(key) && object[key] != is) {
    fail(place + key + " is " + object[key].dump() + ", but there are " + std::to_string(is));
  }
}

std::vector<int32_t> from_vllm_ascend(const json& document, const Topology& topology) {
  const json& layers = document["layer_list"];
  if (!layers.is_array()) fail("layer_list is no list");
  check_said(document, "moe_layer_count", layers.size(), "");
  NestedList list{{static_cast<int64_t>(layers.size()), topology.slots}, {}};
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string place = "layer_list[" + std::to_string(i) + "]";
    if (member(layers[i], "layer_id", place) != i) fail(place + ": layer_id must be its index");
    const json& devices = member(layers[i], "device_list", place);
    if (!devices.is_array()) fail(place + ".device_list is no list");
    check_said(layers[i], "device_count", devices.size(), place + ".");
    size_t slots = 0;
    for (size_t d = 0; d < devices.size(); ++d) {
      const std::string device = place + ".device_list[" + std::to_string(d) + "]";
      if (member(devices[d], "device_id", device) != d) {
        fail(device + ": device_id must be its index");
      }
      const NestedList row = read_nested_list(member(devices[d], "device_expert", device),
                                              device + ".device_expert", 1, 1);
      if (row.shape[0] != topology.slots_per_gpu()) {
        fail(device + " has " + std::to_string(row.shape[0]) + " experts, not " +
             std::to_string(topology.slots_per_gpu()));
      }
      slots += row.values.size();
      list.values.insert(list.values.end(), row.values.begin(), row.values.end());
    }
    if (slots != static_cast<size_t>(topology.slots)) {
      fail(place + " has " + std::to_string(devices.size()) + " devices, not " +
           std::to_string(topology.gpus));
    }
  }
  return from_rows(list, topology);
}

std::vector<int32_t> from_json(const std::string& text, const Topology& topology) {
  const json document = parse_json(text);
  if (document.is_array()) return from_rows(read_nested_list(document, "", 2, 2), topology);
  if (document.is_object() && document.contains("layer_list")) {
    return from_vllm_ascend(document, topology);
  }
  if (document.is_object() && document.contains("physical_to_logical_map")) {
    const char* key = "physical_to_logical_map";
    return from_rows(read_nested_list(document[key], key, 2, 2), topology);
  }
  fail("it has neither physical_to_logical_map (SGLang) nor layer_list (vllm-ascend)");
}

std::vector<int32_t> from_trtllm(const std::string& text, const Topology& topology) {
  const YAML::Node document = YAML::Load(text);
  const YAML::Node layers = document.IsMap() ? document["initial_global_assignments"] : document;
  if (document.IsMap() && !layers && document["num_slots"]) {
    fail(
        "it is an online configuration of TensorRT-LLM, without initial_global_assignments: the "
        "engine begins with the initial placement and balances by itself. There is no placement "
        "in it");
  }
  if (!document.IsMap() || !layers || !layers.IsMap()) {
    fail("it has no initial_global_assignments (TensorRT-LLM), and is neither JSON, .npy nor CSV");
  }
  const YAML::Node said = document["num_slots"];
  if (said && (!said.IsScalar() || said.Scalar() != std::to_string(topology.slots))) {
    fail("line " + std::to_string(said.Mark().line + 1) + ": num_slots must be " +
         std::to_string(topology.slots));
  }
  if (layers.size() != static_cast<size_t>(topology.layers)) {
    fail("initial_global_assignments has " + std::to_string(layers.size()) + " layers, not " +
         std::to_string(topology.layers));
  }
  std::vector<int32_t> map;
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const std::string id = std::to_string(topology.layer_id(layer));
    const YAML::Node row = layers[id];
    if (!row) fail("initial_global_assignments has no layer " + id);
    if (!row.IsSequence() || row.size() != static_cast<size_t>(topology.slots)) {
      fail("line " + std::to_string(row.Mark().line + 1) + ": layer " + id + " has " +
           std::to_string(row.size()) + " slots, not " + std::to_string(topology.slots));
    }
    for (const YAML::Node& slot : row) map.push_back(slot.as<int32_t>());
  }
  return map;
}

std::vector<int32_t> read_map(const DataFile& file, const Topology& topology) {
  const std::string text(file.text());
  switch (file.kind()) {
    case DataKind::npy:
      return from_npy(file, topology);
    case DataKind::json:
      return from_json(text, topology);
    case DataKind::json_lines:
      fail("it is JSON Lines: a placement is one JSON document");
    case DataKind::table:
      return from_rows(read_table(text), topology);
    case DataKind::other_text:
      break;
  }
  return from_trtllm(text, topology);
}

}  // namespace

PlacementFormat placement_format_of(const std::string& file) {
  const std::string suffix = std::filesystem::path(file).extension().string();
  if (suffix == ".npy") return PlacementFormat::npy;
  if (suffix == ".yaml" || suffix == ".yml") return PlacementFormat::trtllm;
  if (suffix == ".json" || suffix.empty()) return PlacementFormat::json;
  throw UsageError(file + ": " + suffix +
                   " is no format's suffix (.npy, .yaml, .json); --format says which to write");
}

Placement read_placement(const std::string& file, const Topology& topology) {
  try {
    const DataFile content(file);
    Placement placement(topology, read_map(content, topology));
    PlacementRules rules;
    rules.allow_duplicates = true;  // the originals make them; what is in force may have them
    if (const auto violation = find_violation(topology, placement, rules)) fail(*violation);
    return placement;
  } catch (const YAML::Exception& error) {
    const bool placed = !error.mark.is_null();
    throw std::runtime_error(file + (placed ? ":" + std::to_string(error.mark.line + 1) : "") +
                             ": it is neither .npy, JSON nor the YAML of TensorRT-LLM");
  } catch (const std::exception& error) {
    const std::string what = error.what();
    throw std::runtime_error(what.starts_with(file) ? what : file + ": " + what);
  }
}

}  // namespace eplbd
