// SPDX-License-Identifier: Apache-2.0
#include "core/model/topology.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace eplbd {
namespace {

// A counts message must fit a frame of 4 MiB, a placement too.
constexpr int64_t kMaxCells = (int64_t{4} << 20) / 4 - 1024;

std::string pair(const char* key, int64_t value) {
  return std::string(key) + " " + std::to_string(value);
}

void check_positive(const Topology& t, std::vector<std::string>& problems) {
  const std::pair<const char*, int32_t> dimensions[] = {
      {"layers", t.layers}, {"logical_experts", t.logical_experts},
      {"slots", t.slots},   {"gpus", t.gpus},
      {"nodes", t.nodes},   {"groups", t.groups}};
  for (const auto& [key, value] : dimensions) {
    if (value < 1) problems.push_back(pair(key, value) + " must be at least 1");
  }
}

void check_sizes(const Topology& t, std::vector<std::string>& problems) {
  if (t.slots < t.logical_experts) {
    problems.push_back(pair("slots", t.slots) + " must be at least " +
                       pair("logical_experts", t.logical_experts) + ": every expert needs a slot");
  }
  if (t.slots % t.gpus != 0) {
    problems.push_back(pair("slots", t.slots) + " must be a multiple of " + pair("gpus", t.gpus) +
                       ": every GPU has as many slots");
  }
  if (t.gpus % t.nodes != 0) {
    problems.push_back(pair("gpus", t.gpus) + " must be a multiple of " + pair("nodes", t.nodes) +
                       ": every node has as many GPUs");
  }
  if (t.groups > t.logical_experts) {
    problems.push_back(pair("groups", t.groups) + " must be at most " +
                       pair("logical_experts", t.logical_experts));
  }
  if (int64_t{t.layers} * std::max(t.slots, t.logical_experts) > kMaxCells) {
    problems.push_back(pair("layers", t.layers) + " times " + pair("slots", t.slots) +
                       " is more than a message of 4 MiB holds");
  }
}

void check_lists(const Topology& t, std::vector<std::string>& problems) {
  if (!t.layer_ids.empty()) {
    if (t.layer_ids.size() != static_cast<size_t>(std::max(t.layers, 0))) {
      problems.push_back("layer_ids has " + std::to_string(t.layer_ids.size()) +
                         " numbers, but there are " + pair("layers", t.layers));
    }
    const std::set<int32_t> distinct(t.layer_ids.begin(), t.layer_ids.end());
    if (distinct.size() != t.layer_ids.size()) problems.emplace_back("layer_ids repeats a number");
    if (*distinct.begin() < 0) problems.emplace_back("layer_ids must not be negative");
  }
  if (!t.gpu_speeds.empty()) {
    if (t.gpu_speeds.size() != static_cast<size_t>(std::max(t.gpus, 0))) {
      problems.push_back("gpu_speeds has " + std::to_string(t.gpu_speeds.size()) +
                         " numbers, but there are " + pair("gpus", t.gpus));
    }
    const bool positive = std::all_of(t.gpu_speeds.begin(), t.gpu_speeds.end(),
                                      [](double s) { return std::isfinite(s) && s > 0; });
    if (!positive) problems.emplace_back("gpu_speeds must be finite and above 0");
  }
}

}  // namespace

std::vector<std::string> Topology::problems() const {
  std::vector<std::string> problems;
  check_positive(*this, problems);
  if (problems.empty()) check_sizes(*this, problems);
  check_lists(*this, problems);
  return problems;
}

Topology resized(const Topology& topology, Shape shape) {
  Topology next = topology;
  next.slots = shape.slots;
  next.gpus = shape.gpus;
  const bool whole_nodes = shape.gpus % topology.gpus_per_node() == 0;
  next.nodes = whole_nodes ? shape.gpus / topology.gpus_per_node() : 1;
  next.gpu_speeds.clear();
  if (topology.gpu_speeds.empty() || !next.problems().empty()) return next;
  next.gpu_speeds = topology.gpu_speeds;
  next.gpu_speeds.resize(shape.gpus, 1.0);
  return next;
}

}  // namespace eplbd
