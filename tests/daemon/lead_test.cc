// One of several daemons that takes over: what it loads, saves and publishes, without sockets.
// SPDX-License-Identifier: Apache-2.0
#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <catch2/catch.hpp>
#include <chrono>
#include <stdexcept>

#include "daemon/background.h"
#include "daemon/deployment.h"
#include "daemon/formats/wire.h"
#include "daemon/net/placement_sink.h"
#include "tests/core/shapes.h"

using namespace eplbd;

namespace {

struct Sink : PlacementSink {
  void hold(std::string placement) override { held = std::move(placement); }
  void publish(std::string placement) override {
    hold(std::move(placement));
    publish_again();
  }
  void publish_again() override { sent.push_back(held); }
  void heartbeat(std::string_view) override {}
  std::string held;
  std::vector<std::string> sent;
};

struct Store : StateStore {
  Recovered load() override { return {saved, {}}; }
  void save(const RebalancerState& state) override {
    ++saves;
    if (fails) throw std::runtime_error("it fails");
    saved = state;
  }
  std::optional<RebalancerState> saved;
  std::atomic<int> saves = 0;  // begun
  std::atomic<bool> fails = false;
};

constexpr uint64_t kTerm = 4'000'000'000;  // after every clock

// A daemon that stands by, after another one saved (1000, 2).
struct Standby {
  explicit Standby(Mode mode = Mode::active) {
    RebalancerState state;
    PlacementLog& log = state.placements;
    log.initial = Placement::initial(topology);
    log.published.id = log.highest = {1000, 2};
    log.published.placement = Placement(topology, {0, 1, 3, 2, 0, 1, 0, 1, 3, 2, 0, 1});
    log.new_term = false;
    store.saved = state;
    RebalancerOptions options;
    options.mode = mode;
    deployment.emplace("d", topology, options, std::nullopt, sink, store, background, metrics,
                       [](bool) {});
    deployment->stand_by("a test");
    deployment->lead({1, kTerm, TimePoint::max()});
  }

  template <typename Done>
  void run_until(Done done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!done()) {
      if (std::chrono::steady_clock::now() > end) FAIL("not within a minute");
      io.restart();
      if (io.run_one_for(std::chrono::milliseconds(10)) == 0) deployment->tick();
    }
  }

  void check_recovered() {
    run_until([this] { return !sink.sent.empty(); });
    const DaemonMessage message = decode_daemon_message(as_bytes(sink.sent[0]), topology);
    const auto* update = std::get_if<PlacementUpdate>(&message);
    REQUIRE(update != nullptr);
    CHECK(update->reason == UpdateReason::recovered);
    CHECK(update->id.term >= kTerm);
    CHECK(update->placement.map()[2] == 3);
  }

  Topology topology = make_topology(2, 4, 6, 2);
  boost::asio::io_context io;
  Background background{io};
  Metrics metrics{"d", topology, "test"};
  Sink sink;
  Store store;
  std::optional<Deployment> deployment;
};

}  // namespace

TEST_CASE("Who takes over publishes what is in force by a name of its own") {
  Standby daemon;
  daemon.check_recovered();
}

TEST_CASE("... though workers say meanwhile that they run an earlier one") {
  Standby daemon;
  daemon.run_until([&] { return daemon.deployment->leads(); });
  REQUIRE(daemon.sink.sent.empty());  // what is being saved is published on this thread
  Reporter worker;
  const Placement initial = Placement::initial(daemon.topology);
  daemon.deployment->take(worker.report(daemon.topology, 0, {1000, 1}, initial), "a worker");
  daemon.check_recovered();
}

TEST_CASE("... though it could not be saved at first") {
  Standby daemon;
  daemon.store.fails = true;
  daemon.run_until([&] { return daemon.store.saves > 0; });
  CHECK(daemon.sink.sent.empty());
  daemon.store.fails = false;
  daemon.check_recovered();
}

TEST_CASE("Who only watches publishes nothing when it takes over") {
  for (const Mode mode : {Mode::observe, Mode::shadow}) {
    Standby daemon(mode);
    daemon.run_until([&] { return daemon.store.saves > 0; });
    daemon.background.finish();
    CHECK(daemon.sink.sent.empty());
    CHECK(daemon.store.saved->placements.published.id == PlacementId{1000, 2});
  }
}
