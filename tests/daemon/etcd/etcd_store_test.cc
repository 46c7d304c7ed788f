// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/etcd_store.h"

#include <zlib.h>

#include <catch2/catch.hpp>
#include <random>

#include "daemon/store/state_file.h"
#include "tests/daemon/etcd/etcd_server.h"

using namespace eplbd;

namespace {

const Topology kTopology{
    .layers = 2, .logical_experts = 4, .slots = 6, .gpus = 2, .layer_ids = {}, .gpu_speeds = {}};

RebalancerState a_state(uint64_t version, const Topology& topology = kTopology) {
  RebalancerState state;
  state.placements.initial = Placement::initial(topology);
  state.placements.published.placement = state.placements.initial;
  state.placements.published.id = state.placements.highest = {100, version};
  state.placements.new_term = false;
  return state;
}

// A leader of a deployment of its own, as an election makes one.
class Leader {
 public:
  Leader(const HaOptions& options, const std::string& deployment)
      : keys_(options, deployment), etcd_(options), store(options, deployment, kTopology) {}

  void take_over() {
    if (lease_ != 0) etcd_.revoke(lease_, within(20));
    lease_ = etcd_.grant(std::chrono::seconds(60), within(20)).id;
    const auto won = etcd_.transact(
        {{{keys_.leader, &EtcdKey::create_revision, 0}}, {{keys_.leader, "x", lease_}}, ""},
        within(20));
    REQUIRE(won.done);
    store.fence(won.range.revision);
  }
  void end() { etcd_.revoke(std::exchange(lease_, 0), within(20)); }

 private:
  EtcdKeys keys_;
  EtcdClient etcd_;
  int64_t lease_ = 0;

 public:
  EtcdStore store;
};

}  // namespace

TEST_CASE("What a leader saves is loaded by all", "[etcd]") {
  EtcdServer* const server = EtcdServer::shared();
  if (server == nullptr) return;
  Leader leader(server->options, "saved");
  leader.take_over();
  CHECK_FALSE(leader.store.load().state);
  leader.store.save(a_state(5));
  leader.store.save(a_state(6));
  EtcdStore other(server->options, "saved", kTopology);
  const Recovered recovered = other.load();
  CHECK(recovered.notes.empty());
  REQUIRE(recovered.state);
  CHECK(*recovered.state == a_state(6));
  CHECK_FALSE(EtcdStore(server->options, "save", kTopology).load().state);
  CHECK_FALSE(EtcdStore(server->options, "saved/state", kTopology).load().state);
}

TEST_CASE("Whoever leads no longer saves nothing", "[etcd]") {
  EtcdServer* const server = EtcdServer::shared();
  if (server == nullptr) return;
  EtcdStore nobody(server->options, "fenced", kTopology);
  CHECK_THROWS_AS(nobody.save(a_state(1)), EtcdError);
  Leader first(server->options, "fenced");
  Leader second(server->options, "fenced");
  first.take_over();
  first.store.load();
  first.store.save(a_state(1));
  first.end();
  CHECK_THROWS_WITH(first.store.save(a_state(2)), Catch::Contains("lease of this leader ended"));
  second.take_over();
  REQUIRE(second.store.load().state);
  CHECK_THROWS_WITH(first.store.save(a_state(3)), Catch::Contains("another daemon leads"));
  second.store.save(a_state(4));
  CHECK_THROWS_WITH(first.store.save(a_state(5)), Catch::Contains("another daemon leads"));
  CHECK(second.store.load().state->placements.published.id.version == 4);
}

TEST_CASE("What was saved without an answer is seen, and then replaced", "[etcd]") {
  EtcdServer* const server = EtcdServer::shared();
  if (server == nullptr) return;
  Leader leader(server->options, "late");
  leader.take_over();
  leader.store.load();
  leader.store.save(a_state(1));
  EtcdClient etcd(server->options);
  const std::string key = EtcdKeys(server->options, "late").state;
  const std::string late = pack_state(a_state(2), "late", kTopology);
  REQUIRE(etcd.transact({{}, {{key, late}}, ""}, within(20)).done);
  leader.store.save(a_state(3));
  CHECK(leader.store.load().state->placements.published.id.version == 3);
}

TEST_CASE("A state that cannot be used is set aside, or not replaced", "[etcd]") {
  EtcdServer* const server = EtcdServer::shared();
  if (server == nullptr) return;
  Leader leader(server->options, "odd");
  leader.take_over();
  EtcdClient etcd(server->options);
  const EtcdKeys keys(server->options, "odd");
  const auto put = [&](const std::string& bytes) {
    REQUIRE(etcd.transact({{}, {{keys.state, bytes}}, ""}, within(20)).done);
  };
  const Topology wider{
      .layers = 2, .logical_experts = 4, .slots = 8, .gpus = 2, .layer_ids = {}, .gpu_speeds = {}};
  for (const std::string& bytes : {std::string(), std::string("x"), std::string(200, '\xff'),
                                   pack_state(a_state(1, wider), "odd", wider)}) {
    put(bytes);
    const Recovered recovered = leader.store.load();
    CHECK_FALSE(recovered.state);
    REQUIRE(recovered.notes.size() == 1);
    CHECK_THAT(recovered.notes[0], Catch::Contains("kept as " + keys.set_aside));
    const EtcdRange kept = etcd.range(keys.set_aside, within(20));
    REQUIRE(kept.find(keys.set_aside) != nullptr);
    CHECK(kept.find(keys.set_aside)->value == bytes);
    leader.store.save(a_state(2));
    CHECK(leader.store.load().state);
  }
  put(pack_state(a_state(1), "another", kTopology));
  CHECK_THROWS_WITH(leader.store.load(), Catch::Contains("it is of deployment another"));
}

TEST_CASE("Damage of a packed state is found, and is no crash", "[etcd]") {
  const std::string packed = pack_state(a_state(1), "d", kTopology);
  const std::string whole = unpack_state(packed);
  REQUIRE_FALSE(whole.empty());
  for (size_t size = 0; size < packed.size(); ++size) {
    CHECK(unpack_state(std::string_view(packed).substr(0, size)).empty());
  }
  for (size_t i = 0; i < packed.size(); ++i) {
    std::string damaged = packed;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    const std::string bytes = unpack_state(damaged);
    CHECK((bytes.empty() ||
           decode_state_file(bytes, "d", kTopology).fault != StateFileFault::none ||
           bytes == whole));
  }
}

TEST_CASE("A value that says it is far larger than it can be takes no memory", "[etcd]") {
  const auto claiming = [](uint64_t size, const std::string& packed) {
    return std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + packed;
  };
  const std::string packed = pack_state(a_state(1), "d", kTopology).substr(sizeof(uint64_t));
  for (const uint64_t size : {uint64_t{64} << 20, uint64_t{1} << 40, ~uint64_t{0}}) {
    CHECK(unpack_state(claiming(size, packed)).empty());
  }
  // What is as large as it says, and still larger than any state.
  const std::string zeros(100 << 20, '\0');
  uLongf most = compressBound(zeros.size());
  std::string bomb(most, '\0');
  REQUIRE(compress2(reinterpret_cast<Bytef*>(bomb.data()), &most,
                    reinterpret_cast<const Bytef*>(zeros.data()), zeros.size(), 1) == Z_OK);
  bomb.resize(most);
  CHECK(unpack_state(claiming(zeros.size(), bomb)).empty());
}

TEST_CASE("Of a large state the newest placements are kept", "[etcd]") {
  const Topology large{.layers = 61,
                       .logical_experts = 512,
                       .slots = 1024,
                       .gpus = 256,
                       .layer_ids = {},
                       .gpu_speeds = {}};
  RebalancerState state = a_state(9, large);
  std::mt19937 random(1);
  for (uint64_t version = 8; version > 0; --version) {  // as different as they can be
    std::vector<int32_t> map(static_cast<size_t>(large.layers) * large.slots);
    for (int32_t& expert : map) expert = static_cast<int32_t>(random() % 512);
    PlacementUpdate earlier;
    earlier.id = {100, version};
    earlier.placement = Placement(large, map);
    state.placements.history.push_back(earlier);
  }
  const std::string packed = pack_state(state, "d", large);
  CHECK(packed.size() <= 1'500'000);
  const StateFileContent content = decode_state_file(unpack_state(packed), "d", large);
  REQUIRE(content.fault == StateFileFault::none);
  CHECK(content.state.placements.published == state.placements.published);
  REQUIRE(content.state.placements.history.size() >= 4);
  CHECK(content.state.placements.history[0].id.version == 8);
}
