// SPDX-License-Identifier: Apache-2.0
#include "core/workers/source_table.h"

#include <catch2/catch.hpp>
#include <limits>
#include <numeric>

#include "tests/core/shapes.h"

using namespace eplbd;

namespace {

struct Fixture {
  Topology topology = make_topology(2, 4, 4, 2);
  SourceTable table{topology, {"", std::chrono::seconds(30), 3}, std::chrono::seconds(10)};
  SourceTable::Admitted admitted;

  Publisher publisher(std::string name = "dp0") {
    Publisher p;
    p.source = std::move(name);
    p.counts = {1, 2, 3, 4, 4, 3, 2, 1};
    return p;
  }
  IngestResult send(Publisher& publisher, double when) {
    return table.admit(publisher.report(when), at(when).steady, admitted);
  }
  uint64_t tokens() const {
    return std::accumulate(admitted.counts.begin(), admitted.counts.end(), uint64_t{0});
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "A first message of sequence 0 counts in full since its counting began") {
  Publisher p = publisher();
  p.since -= 7200;
  const IngestResult result = send(p, 1);
  CHECK_FALSE(result.rejected);
  CHECK(result.tokens == 20);
  CHECK(to_seconds(admitted.covered) == Approx(7201));
}

TEST_CASE_METHOD(Fixture, "A later first sight counts when it covers at most 30 minutes") {
  Publisher p = publisher();
  p.sequence = 17;
  p.since = 1'700'000'000.0 - 1700;
  CHECK(send(p, 1).tokens == 20);
  Publisher q = publisher("dp1");
  q.sequence = 17;
  q.since = 1'700'000'000.0 - 1900;
  const IngestResult result = send(q, 1);
  CHECK(result.baseline);
  CHECK(result.lost == 0);
  CHECK(admitted.counts.empty());
}

TEST_CASE_METHOD(Fixture, "Deltas cover the time since the source's previous message") {
  Publisher p = publisher();
  send(p, 1);
  CHECK(send(p, 4).tokens == 20);
  CHECK(to_seconds(admitted.covered) == Approx(3));
}

TEST_CASE_METHOD(Fixture, "A running counter counts what it grew by, across its wrap") {
  Publisher p = publisher();
  p.cumulative = true;
  p.counts.assign(8, 0xfffffff0);
  p.since = 1'700'000'000.0 - 4000;
  p.sequence = 5;
  CHECK(send(p, 1).baseline);
  p.counts.assign(8, 0x00000010);
  CHECK(send(p, 2).tokens == 8 * 0x20);
}

TEST_CASE_METHOD(Fixture, "With running counters a lost message loses no load") {
  Publisher p = publisher();
  p.cumulative = true;
  send(p, 1);
  p.counts = {10, 20, 30, 40, 40, 30, 20, 10};
  ++p.sequence;
  const IngestResult result = send(p, 3);
  CHECK(result.lost == 1);
  CHECK(result.tokens == 180);
}

TEST_CASE_METHOD(Fixture, "A repeat is a duplicate and adds nothing") {
  Publisher p = publisher();
  send(p, 1);
  --p.sequence;
  const IngestResult result = send(p, 2);
  CHECK(result.duplicate);
  CHECK_FALSE(result.rejected);
  CHECK(admitted.counts.empty());
}

TEST_CASE_METHOD(Fixture, "A gap of over 30 minutes makes the next message a baseline") {
  Publisher p = publisher();
  send(p, 1);
  CHECK(send(p, 1802).baseline);
  CHECK(send(p, 1803).tokens == 20);
}

TEST_CASE_METHOD(Fixture,
                 "A larger epoch is a restart, a smaller one a conflict while we hear it") {
  Publisher p = publisher();
  send(p, 1);
  Publisher restarted = publisher();
  restarted.epoch = 2;
  restarted.since += 2;
  const IngestResult result = send(restarted, 3);
  CHECK(result.restarted);
  CHECK(result.lost == 0);
  CHECK(result.tokens == 20);
  CHECK(send(p, 4).rejected == RejectReason::source_conflict);
  // It wins after the timeout of silence.
  CHECK_FALSE(send(p, 35).rejected);
}

TEST_CASE_METHOD(Fixture, "A time that does not grow or is not finite is rejected") {
  Publisher p = publisher();
  send(p, 5);
  CHECK(send(p, 5).rejected == RejectReason::bad_timestamp);
  CHECK(send(p, 4).rejected == RejectReason::bad_timestamp);
  CHECK(send(p, std::numeric_limits<double>::quiet_NaN()).rejected == RejectReason::bad_timestamp);
  // What was dropped for its content had arrived: no gap follows.
  CHECK(send(p, 6).lost == 0);
  Publisher q = publisher("dp1");
  q.since = std::numeric_limits<double>::infinity();
  CHECK(send(q, 6).rejected == RejectReason::bad_timestamp);
}

TEST_CASE_METHOD(Fixture, "Another shape is rejected and leaves no trace") {
  Publisher p = publisher();
  p.counts.resize(7);
  CHECK(send(p, 1).rejected == RejectReason::wrong_shape);
  CHECK(table.sources().empty());
}

TEST_CASE_METHOD(Fixture, "One engine is followed, until it is silent") {
  Publisher a = publisher("a");
  a.engine = "first";
  Publisher b = publisher("b");
  b.engine = "second";
  send(a, 1);
  CHECK(send(b, 2).rejected == RejectReason::wrong_engine);
  CHECK_FALSE(send(b, 40).rejected);
  table.set_rules({"first", std::chrono::seconds(30), 3}, std::chrono::seconds(10));
  CHECK(send(b, 41).rejected == RejectReason::wrong_engine);
  CHECK_FALSE(send(a, 41).rejected);
}

TEST_CASE_METHOD(Fixture, "Of global sources one is used, and it does not mix with local ones") {
  Publisher global = publisher("g");
  global.global = true;
  Publisher other = publisher("h");
  other.global = true;
  Publisher local = publisher("l");
  CHECK_FALSE(send(global, 1).rejected);
  CHECK(send(other, 1).rejected == RejectReason::scope_conflict);
  CHECK(send(local, 1).rejected == RejectReason::scope_conflict);
  CHECK_FALSE(send(other, 40).rejected);
}

TEST_CASE_METHOD(Fixture, "There are at most as many sources as allowed; a silent one makes room") {
  for (const char* name : {"a", "b", "c"}) {
    Publisher p = publisher(name);
    CHECK_FALSE(send(p, 1).rejected);
  }
  Publisher d = publisher("d");
  CHECK(send(d, 2).rejected == RejectReason::too_many_sources);
  CHECK_FALSE(send(d, 40).rejected);
  CHECK(table.sources().size() == 3);
}

TEST_CASE_METHOD(Fixture, "Layers that disagree about the tokens are noticed") {
  Publisher p = publisher();
  CHECK_FALSE(send(p, 1).inconsistent);
  p.counts[0] += 1;
  CHECK(send(p, 2).inconsistent);
}

TEST_CASE_METHOD(Fixture, "Counts and state of one publisher share its sequence") {
  Publisher p = publisher();
  Reporter reporter;
  reporter.source = "dp0";
  reporter.sequence = 1;
  send(p, 1);  // 0
  const Placement initial = Placement::initial(topology);
  CHECK(table.admit(reporter.report(topology, 1, {}, initial), at(1).steady).lost == 0);
  p.sequence = 2;
  CHECK(send(p, 2).lost == 0);
  p.sequence = 4;
  CHECK(send(p, 3).lost == 1);
  // A repeat of the state report.
  reporter.sequence = 1;
  CHECK(table.admit(reporter.report(topology, 1, {}, initial), at(3).steady).duplicate);
}

TEST_CASE_METHOD(Fixture, "Tokens a GPU and step follow the source with the most steps") {
  for (int i = 0; i < 100; ++i) {
    for (const char* name : {"a", "b"}) {
      Publisher p = publisher(name);
      p.sequence = i;
      CountsReport report = p.report(i + 1);
      report.steps = name[0] == 'a' ? 2 : 1;
      table.admit(report, at(i + 1).steady, admitted);
    }
  }
  // 20 tokens of a layer a second, 2 steps a second, 2 GPUs.
  CHECK(table.tokens_per_gpu_step(at(100).steady) == Approx(5).epsilon(0.05));
}

TEST_CASE_METHOD(Fixture, "Live sources agree on a placement, or they do not") {
  Publisher a = publisher("a");
  Publisher b = publisher("b");
  CHECK_FALSE(table.agreed_placement(at(0).steady));
  a.running = b.running = {5, 2};
  send(a, 1);
  send(b, 20);
  CHECK(table.agreed_placement(at(20).steady) == PlacementId{5, 2});
  b.running = {5, 3};
  send(b, 21);
  CHECK_FALSE(table.agreed_placement(at(21).steady));
  CHECK(table.agreed_placement(at(40).steady) == PlacementId{5, 3});  // a is silent
  CHECK_FALSE(table.any_live(at(100).steady));
}
