// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/placement_command.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <vector>

#include "core/model/migration.h"
#include "eplbctl/errors.h"
#include "eplbctl/file.h"
#include "eplbctl/orders.h"
#include "eplbctl/placement_file.h"
#include "eplbctl/text.h"

namespace eplbd {
namespace {

using nlohmann::json;

constexpr char kPlacementPath[] = "/api/v1/placement";

Placement placement_of(const json& answer, const Topology& topology) {
  std::vector<int32_t> map;
  for (const json& row : answer.at("physical_to_logical_map")) {
    for (const json& expert : row) map.push_back(expert.get<int32_t>());
  }
  return {topology, std::move(map)};
}

// One layer: each GPU's experts.
std::string layer_text(const Topology& topology, const Placement& placement, int32_t id) {
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    if (topology.layer_id(layer) != id) continue;
    std::string text;
    for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) {
      text += format("GPU {:4} ", gpu);
      for (int32_t slot = 0; slot < topology.slots_per_gpu(); ++slot) {
        const int32_t expert = placement.layer(layer)[gpu * topology.slots_per_gpu() + slot];
        text += expert == kNoExpert ? format(" {:>4}", "-") : format(" {:4}", expert);
      }
      text += "\n";
    }
    return text;
  }
  throw UsageError("there is no layer " + std::to_string(id) + ": they are " +
                   std::to_string(topology.layer_id(0)) + " to " +
                   std::to_string(topology.layer_id(topology.layers - 1)));
}

// A line a layer: its most replicated experts.
std::string layers_text(const Topology& topology, const Placement& placement) {
  constexpr size_t kShown = 8;
  std::string text = "layer  experts with most replicas (expert x replicas)\n";
  std::vector<int32_t> replicas(topology.logical_experts);
  std::vector<int32_t> order(topology.logical_experts);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    count_replicas(placement.layer(layer), replicas);
    for (int32_t expert = 0; expert < topology.logical_experts; ++expert) order[expert] = expert;
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return replicas[a] > replicas[b]; });
    text += format("{:5} ", topology.layer_id(layer));
    for (size_t i = 0; i < std::min(kShown, order.size()) && replicas[order[i]] > 1; ++i) {
      text += format(" {}x{}", order[i], replicas[order[i]]);
    }
    text += "\n";
  }
  return text;
}

}  // namespace

int run_placement(const PlacementOptions& options) {
  const DaemonClient daemon(options.daemon);
  const json answer = daemon.get(kPlacementPath);
  if (options.json) {
    std::cout << answer.dump() << '\n';
    return 0;
  }
  const Topology topology = daemon.topology();
  const Placement placement = placement_of(answer, topology);
  std::cout << answer.at("deployment").get<std::string>() << "  version "
            << answer.at("version").get<uint64_t>() << " (term "
            << answer.at("term").get<uint64_t>() << "), " << answer.at("reason").get<std::string>()
            << ", " << topology.layers << " layers, " << topology.logical_experts << " experts in "
            << topology.slots << " slots on " << topology.gpus << " GPUs\n"
            << (options.layer >= 0 ? layer_text(topology, placement, options.layer)
                                   : layers_text(topology, placement));
  return 0;
}

int run_placement_export(const PlacementOptions& options) {
  const PlacementFormat format =
      options.format ? *options.format : placement_format_of(options.file);
  const DaemonClient daemon(options.daemon);
  const Topology topology = daemon.topology();
  const Placement placement = placement_of(daemon.get(kPlacementPath), topology);
  write_file(options.file, format_placement(topology, placement, format));
  return 0;
}

int run_placement_import(const PlacementOptions& options) {
  const DaemonClient daemon(options.daemon);
  const Topology topology = daemon.topology();
  const Placement placement = read_placement(options.file, topology);
  json rows = json::array();
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    const auto row = placement.layer(layer);
    rows.push_back(std::vector<int32_t>(row.begin(), row.end()));
  }
  json body{{"physical_to_logical_map", std::move(rows)}};
  if (options.dry_run) body["dry_run"] = true;  // a daemon of an earlier release knows no such key
  return run_order({options.daemon, "/v1/import", body.dump(), options.json});
}

int run_placement_diff(const PlacementOptions& options) {
  const DaemonClient daemon(options.daemon);
  const Topology topology = daemon.topology();
  const Placement base = options.other.empty() ? placement_of(daemon.get(kPlacementPath), topology)
                                               : read_placement(options.file, topology);
  const Placement next =
      read_placement(options.other.empty() ? options.file : options.other, topology);
  const std::vector<Move> moves = moves_between(topology, base, next);
  const std::vector<int32_t> changed = changed_layers(base, next);
  if (options.json) {
    json list = json::array();
    for (const Move& move : moves) {
      list.push_back({topology.layer_id(move.layer), move.slot, move.expert, move.source_slot});
    }
    std::cout << json{{"layers_changed", changed.size()}, {"moves", std::move(list)}}.dump()
              << '\n';
    return 0;
  }
  const MoveCount count = count_moves(topology, base, next);
  std::cout << changed.size() << " layers differ, " << grouped(count.total) << " moves, at most "
            << grouped(count.worst_gpu) << " to a GPU\n";
  for (const Move& move : moves) {
    std::cout << "layer " << topology.layer_id(move.layer) << ": GPU " << topology.gpu_of(move.slot)
              << " slot " << move.slot << " takes expert " << move.expert
              << (move.source_slot < 0
                      ? " from disk"
                      : " from GPU " + std::to_string(topology.gpu_of(move.source_slot)))
              << '\n';
  }
  return 0;
}

}  // namespace eplbd
