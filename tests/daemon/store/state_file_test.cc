// SPDX-License-Identifier: Apache-2.0
#include "daemon/store/state_file.h"

#include <sys/stat.h>

#include <boost/crc.hpp>
#include <catch2/catch.hpp>
#include <cstring>

#include "tests/daemon/folder.h"
#include "tests/paths.h"

using namespace eplbd;

namespace {

const Topology kTopology{
    .layers = 2, .logical_experts = 4, .slots = 6, .gpus = 2, .layer_ids = {}, .gpu_speeds = {}};
const std::vector<int32_t> kMap = {0, 1, 2, 3, 0, 1, 3, 2, 1, 0, 3, 2};

RebalancerState a_state(uint64_t version) {
  RebalancerState state;
  state.placements.highest = {100, version};
  state.placements.new_term = false;
  state.placements.published.id = {100, version};
  state.placements.published.base = {100, version - 1};
  state.placements.published.unix_seconds = 12.5;
  state.placements.published.reason = UpdateReason::threshold;
  state.placements.published.placement = Placement(kTopology, kMap);
  state.placements.published.moves = {{0, 1, 2, -1}};
  state.placements.initial = Placement::initial(kTopology);
  state.placements.history.push_back(state.placements.published);
  state.placements.history.back().id.version = version - 1;
  state.spent.push_back({12.5, 7});
  state.mode = Mode::shadow;
  state.paused = true;
  state.paused_until_unix_seconds = 99.5;
  state.placements.waits = true;
  state.adopted = {98.5, 10};
  state.gpus_down = {0, 1};
  state.gpus_lost = {1};
  return state;
}

void check_equal(const RebalancerState& a, const RebalancerState& b) {
  CHECK(a.placements.highest == b.placements.highest);
  CHECK(a.placements.new_term == b.placements.new_term);
  CHECK(a.placements.published.id == b.placements.published.id);
  CHECK(a.placements.published.base == b.placements.published.base);
  CHECK(a.placements.published.unix_seconds == b.placements.published.unix_seconds);
  CHECK(a.placements.published.placement == b.placements.published.placement);
  CHECK(a.placements.published.moves == b.placements.published.moves);
  CHECK(a.placements.initial == b.placements.initial);
  REQUIRE(a.placements.history.size() == b.placements.history.size());
  for (size_t i = 0; i < a.placements.history.size(); ++i)
    CHECK(a.placements.history[i].id == b.placements.history[i].id);
  REQUIRE(a.spent.size() == b.spent.size());
  for (size_t i = 0; i < a.spent.size(); ++i) CHECK(a.spent[i].moves == b.spent[i].moves);
  CHECK(a.mode == b.mode);
  CHECK(a.paused == b.paused);
  CHECK(a.paused_until_unix_seconds == b.paused_until_unix_seconds);
  CHECK(a.placements.waits == b.placements.waits);
  CHECK(a.adopted == b.adopted);
  CHECK(a.gpus_down == b.gpus_down);
  CHECK(a.gpus_lost == b.gpus_lost);
}

Recovered recover(const Folder& folder) { return StateFile(folder.path(), "ds", kTopology).load(); }

}  // namespace

TEST_CASE("what is saved is recovered") {
  Folder folder;
  const std::string directory = folder / "new/state";  // made where it is missing
  {
    StateFile file(directory, "ds", kTopology);
    CHECK_FALSE(file.load().state);
    file.save(a_state(5));
  }
  StateFile file(directory, "ds", kTopology);
  const auto recovered = file.load();
  REQUIRE(recovered.state);
  CHECK(recovered.notes.empty());
  check_equal(*recovered.state, a_state(5));
  struct stat status {};
  REQUIRE(stat(directory.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0750);
}

TEST_CASE("a folder is one process's at a time") {
  Folder folder;
  const StateFile file(folder.path(), "ds", kTopology);
  CHECK_THROWS_AS(StateFile(folder.path(), "ds", kTopology), StateHeldError);
}

TEST_CASE("another deployment's state is refused and left alone") {
  Folder folder;
  StateFile(folder.path(), "ds", kTopology).save(a_state(5));
  CHECK_THROWS_AS(StateFile(folder.path(), "other", kTopology).load(), StateForeignError);
  CHECK(recover(folder).state);
}

TEST_CASE("a state of another shape is kept aside") {
  Folder folder;
  StateFile(folder.path(), "ds", kTopology).save(a_state(5));
  Topology other = kTopology;
  other.slots = 12;
  StateFile file(folder.path(), "ds", other);
  const auto recovered = file.load();
  CHECK_FALSE(recovered.state);
  CHECK(recovered.notes.size() == 2);  // and the generation before it
  CHECK_FALSE(folder.has("state"));
  CHECK(folder.count("state.other-shape-") == 1);
}

TEST_CASE("a damaged file is kept aside, and the one before it used") {
  Folder folder;
  {
    StateFile file(folder.path(), "ds", kTopology);
    file.save(a_state(5));
    file.save(a_state(6));
  }
  const std::string whole = folder.read("state");
  const std::string previous = folder.read("state.previous");
  const auto damage = GENERATE(0, 1, 2, 3, 4);
  std::string bytes = whole;
  if (damage == 0) bytes.clear();
  if (damage == 1) bytes.resize(bytes.size() / 2);
  if (damage == 2) bytes += "x";
  if (damage == 3) bytes = "something else altogether, of some length";
  if (damage == 4) bytes[bytes.size() - 9] ^= 1;
  folder.write("state", bytes);
  const auto recovered = recover(folder);
  REQUIRE(recovered.state);
  CHECK(recovered.state->placements.published.id == PlacementId{100, 5});
  CHECK(recovered.state->placements.new_term);  // workers may know version 6
  CHECK(recovered.notes.size() == 2);
  CHECK(folder.count("state.damaged-") == 1);
}

TEST_CASE("a term that was given out is known whichever generation is lost") {
  Folder folder;
  RebalancerState state = a_state(5);
  {
    StateFile file(folder.path(), "ds", kTopology);
    file.save(state);
    state.placements.highest = state.placements.published.id = {200, 6};  // the first of a term
    file.save(state);
  }
  const std::string lost = GENERATE("state", "state.previous");
  const std::string bytes = folder.read(lost);
  folder.write(lost, bytes.substr(0, bytes.size() - 1));
  const auto recovered = recover(folder);
  REQUIRE(recovered.state);
  CHECK(recovered.state->placements.highest == PlacementId{200, 6});
  CHECK(recovered.state->placements.new_term == (lost == "state"));
}

TEST_CASE("a save that ended between its renames has left a whole newest generation") {
  Folder folder;
  {
    StateFile file(folder.path(), "ds", kTopology);
    file.save(a_state(5));
    file.save(a_state(6));
  }
  std::filesystem::rename(folder / "state.previous", folder / "older");
  std::filesystem::rename(folder / "state", folder / "state.new");
  const bool torn = GENERATE(false, true);
  if (torn) {
    std::filesystem::rename(folder / "older", folder / "state.previous");
    std::filesystem::resize_file(folder / "state.new", 100);
  }
  const auto recovered = recover(folder);
  REQUIRE(recovered.state);
  CHECK(recovered.state->placements.published.id == PlacementId{100, torn ? 5U : 6U});
  CHECK(recovered.state->placements.new_term == torn);
  if (torn) return;
  folder.write("state.new", "the next save ended in its first write");
  CHECK(recover(folder).state->placements.published.id == PlacementId{100, 6});
}

TEST_CASE("every length and every flipped bit is found out") {
  const std::string whole = encode_state_file(a_state(5), "ds", kTopology);
  REQUIRE(decode_state_file(whole, "ds", kTopology).fault == StateFileFault::none);
  for (size_t length = 0; length < whole.size(); ++length) {
    CHECK(decode_state_file(whole.substr(0, length), "ds", kTopology).fault !=
          StateFileFault::none);
  }
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ 1 << bit % 8);
    CHECK(decode_state_file(bytes, "ds", kTopology).fault != StateFileFault::none);
  }
}

TEST_CASE("a later format is refused rather than thrown away") {
  Folder folder;
  std::string bytes = encode_state_file(a_state(5), "ds", kTopology);
  bytes[8] = 2;
  folder.write("state", bytes);
  CHECK_THROWS_WITH(recover(folder), Catch::Contains("a later eplbd"));
  CHECK(folder.read("state") == bytes);
}

TEST_CASE("a state of the release before is read, and what a later one adds is skipped") {
  const Topology topology{
      .layers = 4, .logical_experts = 8, .slots = 12, .gpus = 4, .layer_ids = {}, .gpu_speeds = {}};
  Folder folder;
  std::filesystem::copy(EPLBD_SOURCE_DIR "/tests/data/state/format-1", folder / "state");
  std::string bytes = folder.read("state");
  const auto check = [&] {
    const auto recovered = StateFile(folder.path(), "skew", topology).load();
    REQUIRE(recovered.state);
    CHECK(recovered.notes.empty());
    const RebalancerState& state = *recovered.state;
    CHECK(state.placements.published.id == PlacementId{1795917420, 2});
    CHECK(state.placements.highest == PlacementId{1795917420, 2});
    CHECK_FALSE(state.placements.new_term);
    CHECK(state.placements.published.moves.size() == 8);
    CHECK(state.placements.initial == Placement::initial(topology));
    CHECK(state.placements.history.size() == 2);
    CHECK(state.spent.size() == 2);
    CHECK(state.mode == Mode::shadow);
    CHECK(state.paused);
    CHECK(state.gpus_empty.empty());
  };
  check();

  constexpr size_t kHeader = 24;
  ++bytes[kHeader];  // one entry more in the map: {"later": [1, {"of": true}]}
  bytes += "\xa5later\x92\x01\x81\xa2of\xc3";
  boost::crc_32_type crc;
  crc.process_bytes(bytes.data() + kHeader, bytes.size() - kHeader);
  const uint32_t checksum = crc.checksum();
  const uint64_t length = bytes.size() - kHeader;
  std::memcpy(bytes.data() + 12, &checksum, sizeof(checksum));
  std::memcpy(bytes.data() + 16, &length, sizeof(length));
  folder.write("state", bytes);
  check();
}

TEST_CASE("a save that fails leaves what was there") {
  Folder folder;
  StateFile file(folder.path(), "ds", kTopology);
  file.save(a_state(5));
  // The name that is written first is taken by a folder.
  std::filesystem::create_directory(folder / "state.new");
  CHECK_THROWS_WITH(file.save(a_state(6)), Catch::Contains("state.new"));
  const auto recovered = file.load();
  REQUIRE(recovered.state);
  CHECK(recovered.state->placements.published.id == PlacementId{100, 5});
  std::filesystem::remove(folder / "state.new");
  file.save(a_state(7));
  CHECK(file.load().state->placements.published.id == PlacementId{100, 7});
}

TEST_CASE("a shape that was resized to holds until the configuration changes") {
  RebalancerState resized_state;
  resized_state.resized = Shape{9, 3};
  const Topology larger = resized(kTopology, {9, 3});
  resized_state.placements.highest = {100, 7};
  resized_state.placements.published.id = {100, 7};
  resized_state.placements.published.placement = Placement::initial(larger);
  resized_state.placements.initial = Placement::initial(larger);
  resized_state.gpus_down = {2};
  const std::string bytes = encode_state_file(resized_state, "ds", kTopology);
  const auto decode = [&](const Topology& configured) {
    return decode_state_file(bytes, "ds", configured);
  };

  const StateFileContent same = decode(kTopology);
  REQUIRE(same.fault == StateFileFault::none);
  CHECK(same.state == resized_state);

  const StateFileContent written_down = decode(larger);
  REQUIRE(written_down.fault == StateFileFault::none);
  CHECK_FALSE(written_down.state.resized);
  CHECK(written_down.state.placements == resized_state.placements);

  const StateFileContent third = decode(resized(kTopology, {12, 3}));
  CHECK(third.fault == StateFileFault::other_shape);
  CHECK_THAT(third.detail, Catch::Contains("9 slots of 3 GPUs"));
}
