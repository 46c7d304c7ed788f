// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/engine_group.h"

#include <catch2/catch.hpp>
#include <random>

#include "core/model/migration.h"
#include "eplbctl/errors.h"
#include "tests/core/shapes.h"

namespace eplbd {
namespace {

TEST_CASE("an engine's way is its own configuration, or what is written over it") {
  CHECK_FALSE(parse_engine("incremental"));
  CHECK(parse_engine("engine:vllm") == EngineOptions{"vllm", 3000, 1000, 0});
  CHECK(parse_engine("engine:sglang") == EngineOptions{"sglang", 1000, 1000, 0});
  CHECK(parse_engine("engine:vllm,window=7,interval=20,pass=50ms") ==
        EngineOptions{"vllm", 20, 7, 0.05});
  for (const char* wrong : {"engine:", "engine:x", "engine:vllm,interval", "engine:vllm,interval=0",
                            "engine:vllm,interval=1e3", "engine:vllm,pass=3", "engine:vllm,size=1",
                            "engine:vllm,", "engine:vllm,window=99999999999999999999"}) {
    CAPTURE(wrong);
    CHECK_THROWS_AS(parse_engine(wrong), UsageError);
  }
}

// Rebuilds by hand at each interval from the window's sum, and serves what the group must serve.
TEST_CASE("an engine rebuilds at its interval from its window, and serves it once applied") {
  const Topology topology = make_topology(2, 8, 12, 4);
  const auto policy = make_scratch_policy({.policy = Policy::deepseek});
  struct Case {
    EngineOptions engine;
    VirtualTime time;
    int64_t first, interval, window;  // steps of the trace
  };
  for (const Case& c : {Case{{"vllm", 6, 4, 0}, {1, 0, 1}, 1, 6, 4},
                        Case{{"vllm", 60, 90, 0.5}, {10, 25, 1}, 1, 3, 5},
                        Case{{"sglang", 5, 100, 0}, {2, 1, 1}, 5, 5, 100}}) {
    EngineGroup group(topology, c.engine, c.time);
    std::mt19937 random(3);
    std::vector<std::vector<uint32_t>> all;
    Placement serving = Placement::initial(topology);
    std::optional<Placement> next;
    double serves_from = 0;  // seconds
    int updates = 0;
    for (int64_t step = 0; step < 30; ++step) {
      CAPTURE(c.engine.interval, step);
      std::vector<uint32_t> counts(16);
      for (uint32_t& count : counts) count = random() % 1000;
      all.push_back(counts);
      const double begin = static_cast<double>(step) * c.time.step_seconds;
      const double end = begin + c.time.step_seconds;
      const VirtualGroup::Step result = group.step(counts);
      if (next && serves_from <= begin) serving = *std::exchange(next, {});
      double until = end;
      if (next && serves_from < end) until = serves_from;
      REQUIRE(result.served.size() == (until < end ? 2 : 1));
      CHECK(result.served.front().placement == serving);
      CHECK(result.served.front().part == Approx((until - begin) / c.time.step_seconds));
      if (until < end) {
        serving = *std::exchange(next, {});
        CHECK(result.served.back().placement == serving);
      }
      const int64_t since_first = step + 1 - c.first;
      const bool due = since_first >= 0 && since_first % c.interval == 0 && !next;
      REQUIRE(result.decided.size() == (due ? 1 : 0));
      if (!due) continue;
      std::vector<double> sum(16, 0);
      for (auto i = std::max<int64_t>(0, step + 1 - c.window); i <= step; ++i) {
        for (size_t cell = 0; cell < 16; ++cell) sum[cell] += all[i][cell];
      }
      next = keep_slots(topology, serving, policy->place(topology, sum, {}).placement);
      const Decision& decision = result.decided.front().decision;
      CHECK(decision.update->placement == *next);
      CHECK(decision.moves == count_moves(topology, serving, *next).total);
      serves_from = end + c.time.apply_seconds;
      updates += decision.moves > 0;
    }
    CHECK(updates >= 2);
  }
}

}  // namespace
}  // namespace eplbd
