// The bytes of a state file: see daemon/store/state_file.h.
// SPDX-License-Identifier: Apache-2.0
#include <boost/crc.hpp>
#include <cmath>
#include <cstring>

#include "daemon/formats/msgpack_map.h"
#include "daemon/formats/msgpack_reader.h"
#include "daemon/formats/wire.h"
#include "daemon/store/state_file.h"

namespace eplbd {
namespace {

constexpr std::string_view kMagic = "eplbd-st";
constexpr uint32_t kFormat = 1;

struct Header {
  char magic[8];
  uint32_t format;
  uint32_t checksum;  // CRC-32 of the body
  uint64_t length;    // of the body
};
static_assert(sizeof(Header) == 24);

uint32_t checksum_of(std::string_view body) {
  boost::crc_32_type crc;
  crc.process_bytes(body.data(), body.size());
  return crc.checksum();
}

// A placement may stand there without being anybody's: one that was never published.
PlacementUpdate as_update(const Placement& placement) {
  PlacementUpdate update;
  update.placement = placement;
  return update;
}

void add_placements(MsgpackMap& map, std::string_view key,
                    const std::deque<PlacementUpdate>& updates, const Topology& topology) {
  std::vector<std::string> encoded;
  encoded.reserve(updates.size());
  for (const PlacementUpdate& update : updates) {
    encoded.push_back(encode_placement(update, topology));
  }
  map.add_binaries(key, encoded);
}

// The map of a state file, value by value. Any value that is not what it should be fails all.
class StateReader {
 public:
  StateReader(std::string_view body, const Topology& configured)
      : reader_(as_bytes(body)), topology_(configured) {}

  bool read(std::string& deployment, std::string& shape, RebalancerState& state) {
    const auto map = reader_.next();
    if (!map || map->type != MsgpackType::map) return false;
    for (uint32_t i = 0; i < map->items && !failed_; ++i) {
      const auto key = reader_.next();
      const auto name = key ? key->as_string() : std::nullopt;
      if (!name) return false;
      // These come first, and tell whether the rest means anything to us.
      if (*name == "deployment") {
        deployment = text();
      } else if (*name == "shape") {
        shape = text();
      } else if (*name == "resized_from") {
        resized_from_ = text();
      } else if (*name == "resized") {
        take_shape(numbers<int32_t>(), state);
      } else if (shape != state_shape(topology_)) {
        return true;
      } else if (!read_ids(*name, state) && !read_placements(*name, state) &&
                 !read_orders(*name, state)) {
        if (!reader_.next_whole(1)) return false;  // of a later version of ours
      }
    }
    return !failed_ && reader_.at_end();
  }

  const Topology& topology() const { return topology_; }

  static std::string state_shape(const Topology& topology) {
    return std::to_string(topology.layers) + " layers x " +
           std::to_string(topology.logical_experts) + " experts on " +
           std::to_string(topology.slots) + " slots of " + std::to_string(topology.gpus) + " GPUs";
  }

 private:
  // An order holds until the configuration is another one than it was given under.
  void take_shape(const std::vector<int32_t>& shape, RebalancerState& state) {
    check(shape.size() == 2);
    if (failed_ || resized_from_ != state_shape(topology_)) return;
    state.resized = Shape{shape[0], shape[1]};
    topology_ = resized(topology_, *state.resized);
    check(topology_.problems().empty());
  }

  bool read_ids(std::string_view name, RebalancerState& state) {
    if (name == "highest_term") {
      state.placements.highest.term = uint();
    } else if (name == "highest_version") {
      state.placements.highest.version = uint();
    } else if (name == "new_term") {
      state.placements.new_term = uint() != 0;
    } else if (name == "adopted_waits") {
      state.placements.waits = uint() != 0;
    } else {
      return false;
    }
    return true;
  }

  bool read_placements(std::string_view name, RebalancerState& state) {
    if (name == "published") {
      state.placements.published = placement(reader_.next());
    } else if (name == "initial") {
      state.placements.initial = placement(reader_.next()).placement;
    } else if (name == "history") {
      const auto array = reader_.next();
      check(array && array->type == MsgpackType::array);
      for (uint32_t i = 0; !failed_ && i < array->items; ++i) {
        state.placements.history.push_back(placement(reader_.next()));
      }
    } else {
      return false;
    }
    return true;
  }

  bool read_orders(std::string_view name, RebalancerState& state) {
    if (name == "spent") {
      const std::vector<double> pairs = numbers<double>();
      check(pairs.size() % 2 == 0);
      for (size_t i = 0; i + 1 < pairs.size(); i += 2) {
        check(std::isfinite(pairs[i]) && std::abs(pairs[i + 1]) < 9e15);
        if (!failed_) state.spent.push_back({pairs[i], std::llround(pairs[i + 1]), false});
      }
    } else if (name == "mode") {
      state.mode = from_name<Mode>(text());
      check(state.mode.has_value());
    } else if (name == "paused") {
      state.paused = uint() != 0;
    } else if (name == "paused_until") {
      state.paused_until_unix_seconds = number();
    } else if (name == "adopted_turn") {
      state.adopted.unix_seconds = number();
    } else if (name == "adopted_pause") {
      state.adopted.pause_seconds = number();
    } else if (name == "gpus_down") {
      state.gpus_down = gpus();
    } else if (name == "gpus_lost") {
      state.gpus_lost = gpus();
    } else if (name == "gpus_empty") {
      state.gpus_empty = gpus();
    } else if (name == "spent_forced") {  // comes after "spent"
      const std::vector<int32_t> forced = numbers<int32_t>();
      check(forced.size() == state.spent.size());
      for (size_t i = 0; !failed_ && i < forced.size(); ++i) state.spent[i].forced = forced[i] != 0;
    } else {
      return false;
    }
    return true;
  }

  void check(bool condition) { failed_ |= !condition; }

  template <typename T>
  T take(std::optional<T> value) {
    check(value.has_value());
    return value.value_or(T{});
  }
  uint64_t uint() {
    const auto value = reader_.next();
    return take(value ? value->as_uint() : std::nullopt);
  }
  double number() {
    const auto value = reader_.next();
    const double number = take(value ? value->as_double() : std::nullopt);
    check(std::isfinite(number));
    return number;
  }
  std::string text() {
    const auto value = reader_.next();
    return std::string(take(value ? value->as_string() : std::nullopt));
  }
  template <typename T>
  std::vector<T> numbers() {
    const auto value = reader_.next();
    const auto bytes = take(value ? value->as_binary() : std::nullopt);
    check(bytes.size() % sizeof(T) == 0);
    std::vector<T> result(bytes.size() / sizeof(T));
    if (!result.empty()) std::memcpy(result.data(), bytes.data(), result.size() * sizeof(T));
    return result;
  }
  std::vector<int32_t> gpus() {
    std::vector<int32_t> values = numbers<int32_t>();
    for (const int32_t gpu : values) check(gpu >= 0 && gpu < topology_.gpus);
    return values;
  }
  PlacementUpdate placement(const std::optional<MsgpackValue>& value) {
    const auto bytes = take(value ? value->as_binary() : std::nullopt);
    DaemonMessage message = decode_daemon_message(bytes, topology_);
    auto* update = std::get_if<PlacementUpdate>(&message);
    check(update != nullptr);
    if (failed_) return {};
    for (const int32_t expert : update->placement.map()) {
      check(expert >= kNoExpert && expert < topology_.logical_experts);
    }
    return std::move(*update);
  }

  MsgpackReader reader_;
  Topology topology_;  // the configured one, in the shape that it was resized to
  std::string resized_from_;
  bool failed_ = false;
};

}  // namespace

std::string encode_state_file(const RebalancerState& state, std::string_view deployment,
                              const Topology& configured) {
  const Topology topology = topology_of(configured, state);
  std::vector<double> spent;
  std::vector<int32_t> forced;
  for (const auto& update : state.spent) {
    spent.insert(spent.end(), {update.unix_seconds, static_cast<double>(update.moves)});
    forced.push_back(update.forced ? 1 : 0);
  }
  MsgpackMap map;
  map.add("deployment", deployment);
  map.add("shape", StateReader::state_shape(topology));
  if (state.resized) {
    const int32_t shape[] = {state.resized->slots, state.resized->gpus};
    map.add("resized_from", StateReader::state_shape(configured));
    map.add_array("resized", std::span<const int32_t>(shape));
  }
  map.add("highest_term", state.placements.highest.term);
  map.add("highest_version", state.placements.highest.version);
  map.add("new_term", state.placements.new_term ? 1 : 0);
  map.add_binary("published", encode_placement(state.placements.published, topology));
  map.add_binary("initial", encode_placement(as_update(state.placements.initial), topology));
  add_placements(map, "history", state.placements.history, topology);
  map.add_array("spent", std::span<const double>(spent));
  map.add_array("spent_forced", std::span<const int32_t>(forced));
  if (state.mode) map.add("mode", to_string(*state.mode));
  map.add("paused", state.paused ? 1 : 0);
  map.add("paused_until", state.paused_until_unix_seconds);
  map.add("adopted_waits", state.placements.waits ? 1 : 0);
  map.add("adopted_turn", state.adopted.unix_seconds);
  map.add("adopted_pause", state.adopted.pause_seconds);
  map.add_array("gpus_down", std::span<const int32_t>(state.gpus_down));
  map.add_array("gpus_lost", std::span<const int32_t>(state.gpus_lost));
  map.add_array("gpus_empty", std::span<const int32_t>(state.gpus_empty));
  const std::string body = map.finish();

  Header header{};
  kMagic.copy(header.magic, sizeof(header.magic));
  header.format = kFormat;
  header.checksum = checksum_of(body);
  header.length = body.size();
  std::string bytes(sizeof(header), '\0');
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes + body;
}

StateFileContent decode_state_file(std::string_view bytes, std::string_view deployment,
                                   const Topology& configured) {
  const auto fault = [](StateFileFault kind, std::string detail) {
    return StateFileContent{kind, std::move(detail), {}};
  };
  Header header{};
  if (bytes.size() < sizeof(header)) return fault(StateFileFault::damaged, "it is cut short");
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::string_view(header.magic, sizeof(header.magic)) != kMagic) {
    return fault(StateFileFault::damaged, "it is no state file of eplbd");
  }
  if (header.format > kFormat) {
    return fault(StateFileFault::newer_format,
                 "a later eplbd wrote it, in format " + std::to_string(header.format));
  }
  const std::string_view body = bytes.substr(sizeof(header));
  if (body.size() != header.length) {
    return fault(StateFileFault::damaged, "it should have " + std::to_string(header.length) +
                                              " bytes and has " + std::to_string(body.size()));
  }
  if (header.format != kFormat || checksum_of(body) != header.checksum) {
    return fault(StateFileFault::damaged, "its checksum is wrong");
  }
  StateFileContent content;
  std::string found;
  std::string shape;
  StateReader reader(body, configured);
  const bool whole = reader.read(found, shape, content.state);
  if (whole && found != deployment) {
    return fault(StateFileFault::other_deployment, "it is of deployment " + found);
  }
  if (whole && shape != StateReader::state_shape(reader.topology())) {
    return fault(StateFileFault::other_shape, "it is of " + shape);
  }
  if (!whole || content.state.placements.published.placement.map().empty() ||
      content.state.placements.initial.map().empty()) {
    return fault(StateFileFault::damaged, "what it says makes no sense");
  }
  content.fault = StateFileFault::none;
  return content;
}

}  // namespace eplbd
