// The shape of one deployment: layers, experts, slots, and where the GPUs are.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace eplbd {

// What a group may change of its shape while it runs, by growing or shrinking.
struct Shape {
  int32_t slots = 0;
  int32_t gpus = 0;
  bool operator==(const Shape&) const = default;
};

// A plain value. Requires nothing on construction; `problems()` says why a shape is impossible, and
// everything else in core requires that it says nothing.
struct Topology {
  int32_t layers = 0;           // MoE layers only
  int32_t logical_experts = 0;  // of each layer
  int32_t slots = 0;            // physical experts of each layer, over all GPUs
  int32_t gpus = 0;             // expert-parallel ranks; slot s is on GPU s / slots_per_gpu()
  int32_t nodes = 1;            // consecutive GPUs form a node
  int32_t groups = 1;           // contiguous blocks of logical experts

  std::vector<int32_t> layer_ids;  // [layers], the model's own numbers; empty: 0, 1, 2 ...
  std::vector<double> gpu_speeds;  // [gpus], relative to each other; empty: all alike

  int32_t slots_per_gpu() const { return slots / gpus; }
  int32_t gpus_per_node() const { return gpus / nodes; }
  int32_t experts_per_group() const { return logical_experts / groups; }
  int32_t gpu_of(int32_t slot) const { return slot / slots_per_gpu(); }
  int32_t node_of(int32_t gpu) const { return gpu / gpus_per_node(); }
  int32_t layer_id(int32_t layer) const { return layer_ids.empty() ? layer : layer_ids[layer]; }
  double gpu_speed(int32_t gpu) const { return gpu_speeds.empty() ? 1.0 : gpu_speeds[gpu]; }

  // Whether groups can be packed to nodes: the hierarchical policy needs it, the global one not.
  bool divides_hierarchically() const {
    return groups % nodes == 0 && logical_experts % groups == 0 && slots % nodes == 0;
  }

  // One sentence a problem, each naming the keys and values that clash. Empty: possible.
  std::vector<std::string> problems() const;

  Shape shape() const { return {slots, gpus}; }

  bool operator==(const Topology&) const = default;
};

// The same model on a group of another shape. Nodes keep their size where it divides the GPUs, else
// all GPUs are one node; GPUs keep their speed, and those that none is known of have 1. Requires
// nothing: its problems() tell whether it is possible.
Topology resized(const Topology& topology, Shape shape);

}  // namespace eplbd
