// The encoding half of daemon/formats/wire.h, by msgpack-cxx's packer.
// SPDX-License-Identifier: Apache-2.0
#include <span>
#include <string>
#include <vector>

#include "daemon/formats/msgpack_map.h"
#include "daemon/formats/wire.h"

namespace eplbd {
namespace {

void begin(MsgpackMap& map, std::string_view type) {
  map.add("type", type);
  map.add("v", kWireVersion);
}

template <typename Report>
void add_common(MsgpackMap& map, const Report& report) {
  map.add("source", report.source);
  if (!report.engine.empty()) map.add("engine", report.engine);
  map.add("epoch", report.epoch);
  map.add("ts", report.ts);
  map.add("term", report.running.term);
  map.add("version", report.running.version);
}

}  // namespace

std::string encode_sequence(uint64_t sequence) {
  std::string frame(sizeof(sequence), '\0');
  for (size_t i = 0; i < frame.size(); ++i) {
    frame[i] = static_cast<char>(sequence >> (8 * (frame.size() - 1 - i)));
  }
  return frame;
}

std::string encode_counts(const CountsReport& report) {
  MsgpackMap map;
  begin(map, "counts");
  add_common(map, report);
  map.add("since", report.since);
  map.add("steps", report.steps);
  map.add("kind", std::string_view(report.cumulative ? "cumulative" : "delta"));
  if (report.global) map.add("scope", std::string_view("global"));
  map.add_array("counts", report.counts);
  if (!report.gpu_tokens.empty()) map.add_array("gpu_tokens", report.gpu_tokens);
  return map.finish();
}

std::string encode_state(const StateReport& report) {
  MsgpackMap map;
  begin(map, "state");
  add_common(map, report);
  map.add("status", to_string(report.status));
  if (report.layers_done >= 0) map.add("layers_done", report.layers_done);
  if (report.apply_seconds >= 0) map.add("apply_seconds", report.apply_seconds);
  if (!report.error.empty()) map.add("error", report.error);
  map.add("layers", report.layers);
  map.add("logical_experts", report.logical_experts);
  map.add("slots", report.slots);
  map.add("gpus", report.gpus);
  map.add_array("physical_to_logical", report.physical_to_logical);
  return map.finish();
}

std::string encode_placement(const PlacementUpdate& update, const Topology& topology) {
  std::vector<int32_t> moves;
  moves.reserve(update.moves.size() * 4);
  for (const Move& move : update.moves) {
    moves.insert(moves.end(), {move.layer, move.slot, move.expert, move.source_slot});
  }
  MsgpackMap map;
  begin(map, "placement");
  map.add("term", update.id.term);
  map.add("version", update.id.version);
  map.add("base_term", update.base.term);
  map.add("base_version", update.base.version);
  map.add("ts", update.unix_seconds);
  map.add("layers", topology.layers);
  map.add("logical_experts", topology.logical_experts);
  map.add("slots", topology.slots);
  map.add("gpus", topology.gpus);
  map.add_array("physical_to_logical", std::span<const int32_t>(update.placement.map()));
  map.add_array("changed_layers", std::span<const int32_t>(update.changed_layers));
  map.add_array("moves", std::span<const int32_t>(moves));
  map.add_array("gpus_down", std::span<const int32_t>(update.gpus_down));
  map.add("imbalance_before", update.imbalance_before);
  map.add("imbalance_after", update.imbalance_after);
  map.add("reason", to_string(update.reason));
  return map.finish();
}

std::string encode_heartbeat(const Heartbeat& heartbeat) {
  MsgpackMap map;
  begin(map, "heartbeat");
  map.add("term", heartbeat.id.term);
  map.add("version", heartbeat.id.version);
  map.add("ts", heartbeat.unix_seconds);
  map.add("mode", to_string(heartbeat.mode));
  return map.finish();
}

}  // namespace eplbd
