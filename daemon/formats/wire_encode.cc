// The encoding half of daemon/formats/wire.h, by msgpack-cxx's packer.
// SPDX-License-Identifier: Apache-2.0
#include <span>
#include <string>
#include <vector>

#include "daemon/formats/msgpack_map.h"
#include "daemon/formats/wire.h"
#include "daemon/formats/wire_keys.h"

namespace eplbd {
namespace {

void begin(MsgpackMap& map, std::string_view type) {
  map.add(key::kType, type);
  map.add(key::kV, kWireVersion);
}

template <typename Report>
void add_common(MsgpackMap& map, const Report& report) {
  map.add(key::kSource, report.source);
  if (!report.engine.empty()) map.add(key::kEngine, report.engine);
  map.add(key::kEpoch, report.epoch);
  map.add(key::kTs, report.ts);
  map.add(key::kTerm, report.running.term);
  map.add(key::kVersion, report.running.version);
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
  map.add(key::kSince, report.since);
  map.add(key::kSteps, report.steps);
  map.add(key::kKind, std::string_view(report.cumulative ? "cumulative" : "delta"));
  if (report.global) map.add(key::kScope, std::string_view("global"));
  map.add_array(key::kCounts, report.counts);
  if (!report.gpu_tokens.empty()) map.add_array(key::kGpuTokens, report.gpu_tokens);
  return map.finish();
}

std::string encode_state(const StateReport& report) {
  MsgpackMap map;
  begin(map, "state");
  add_common(map, report);
  map.add(key::kStatus, to_string(report.status));
  if (report.layers_done >= 0) map.add(key::kLayersDone, report.layers_done);
  if (report.apply_seconds >= 0) map.add(key::kApplySeconds, report.apply_seconds);
  if (!report.error.empty()) map.add(key::kError, report.error);
  map.add(key::kLayers, report.layers);
  map.add(key::kLogicalExperts, report.logical_experts);
  map.add(key::kSlots, report.slots);
  map.add(key::kGpus, report.gpus);
  map.add_array(key::kPhysicalToLogical, report.physical_to_logical);
  if (report.inactive_gpus) map.add(key::kFeatures, std::vector{kInactiveGpus});
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
  map.add(key::kTerm, update.id.term);
  map.add(key::kVersion, update.id.version);
  map.add(key::kBaseTerm, update.base.term);
  map.add(key::kBaseVersion, update.base.version);
  map.add(key::kTs, update.unix_seconds);
  map.add(key::kLayers, topology.layers);
  map.add(key::kLogicalExperts, topology.logical_experts);
  map.add(key::kSlots, topology.slots);
  map.add(key::kGpus, topology.gpus);
  map.add_array(key::kPhysicalToLogical, std::span<const int32_t>(update.placement.map()));
  map.add_array(key::kChangedLayers, std::span<const int32_t>(update.changed_layers));
  map.add_array(key::kMoves, std::span<const int32_t>(moves));
  map.add_array(key::kGpusDown, std::span<const int32_t>(update.gpus_down));
  map.add(key::kImbalanceBefore, update.imbalance_before);
  map.add(key::kImbalanceAfter, update.imbalance_after);
  map.add(key::kReason, to_string(update.reason));
  return map.finish();
}

std::string encode_heartbeat(const Heartbeat& heartbeat) {
  MsgpackMap map;
  begin(map, "heartbeat");
  map.add(key::kTerm, heartbeat.id.term);
  map.add(key::kVersion, heartbeat.id.version);
  map.add(key::kTs, heartbeat.unix_seconds);
  map.add(key::kMode, to_string(heartbeat.mode));
  return map.finish();
}

}  // namespace eplbd
