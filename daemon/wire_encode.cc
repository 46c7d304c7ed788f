// The encoding half of daemon/wire.h, by msgpack-cxx's packer.
// SPDX-License-Identifier: Apache-2.0
#define MSGPACK_NO_BOOST
#include <msgpack.hpp>
#include <span>
#include <string>
#include <vector>

#include "daemon/wire.h"

namespace eplbd {
namespace {

// A map whose keys are counted as they are added: the header comes last.
class MapWriter {
 public:
  explicit MapWriter(std::string_view type) {
    add("type", type);
    add("v", uint64_t{kWireVersion});
  }
  template <typename T>
  void add(std::string_view key, const T& value) {
    begin(key);
    packer_.pack(value);
  }
  void add_text(std::string_view key, std::string_view value) { add(key, value); }
  template <typename T>
  void add_array(std::string_view key, std::span<const T> values) {
    begin(key);
    const auto bytes = static_cast<uint32_t>(values.size_bytes());
    packer_.pack_bin(bytes);
    if (bytes > 0) {
      packer_.pack_bin_body(reinterpret_cast<const char*>(values.data()), bytes);
    }
  }
  template <typename T>
  void add_array(std::string_view key, const PackedArray<T>& values) {
    std::vector<T> copy(values.size());
    values.copy_to(copy);
    add_array(key, std::span<const T>(copy));
  }
  std::string finish() const {
    msgpack::sbuffer head;
    msgpack::packer<msgpack::sbuffer>(head).pack_map(keys_);
    return std::string(head.data(), head.size()) + std::string(body_.data(), body_.size());
  }

 private:
  void begin(std::string_view key) {
    ++keys_;
    packer_.pack(key);
  }

  msgpack::sbuffer body_;
  msgpack::packer<msgpack::sbuffer> packer_{body_};
  uint32_t keys_ = 0;
};

template <typename Report>
void add_common(MapWriter& map, const Report& report) {
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
  MapWriter map("counts");
  add_common(map, report);
  map.add("since", report.since);
  map.add("steps", report.steps);
  map.add_text("kind", report.cumulative ? "cumulative" : "delta");
  if (report.global) map.add_text("scope", "global");
  map.add_array("counts", report.counts);
  if (!report.gpu_tokens.empty()) map.add_array("gpu_tokens", report.gpu_tokens);
  return map.finish();
}

std::string encode_state(const StateReport& report) {
  MapWriter map("state");
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
  MapWriter map("placement");
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
  MapWriter map("heartbeat");
  map.add("term", heartbeat.id.term);
  map.add("version", heartbeat.id.version);
  map.add("ts", heartbeat.unix_seconds);
  map.add("mode", to_string(heartbeat.mode));
  return map.finish();
}

}  // namespace eplbd
