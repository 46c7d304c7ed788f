// SPDX-License-Identifier: Apache-2.0
#include "core/workers/source_table.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/core/shapes.h"

using namespace eplbd;

namespace {

struct Fixture {
  Topology topology = make_topology(2, 4, 4, 2);
  SourceTable table{topology, {"", std::chrono::seconds(30), 3}, std::chrono::seconds(10)};
  IngestResult admitted;  // the last one

  Publisher publisher(std::string name = "dp0") {
    Publisher p;
    p.source = std::move(name);
    p.counts = {1, 2, 3, 4, 4, 3, 2, 1};
    return p;
  }
  IngestResult send(Publisher& publisher, double when) {
    return admitted = table.admit(publisher.report(when), at(when).steady);
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
  const CountsReport timeless = p.report(std::numeric_limits<double>::quiet_NaN());
  CHECK(table.admit(timeless, at(5).steady).rejected == RejectReason::bad_timestamp);
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
      table.admit(report, at(i + 1).steady);
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

TEST_CASE_METHOD(Fixture,
                 "A running counter that starts over is a baseline, not four billion tokens") {
  Publisher p = publisher();
  p.cumulative = true;
  p.counts = {1000, 2000, 3000, 4000, 4000, 3000, 2000, 1000};
  send(p, 1);
  p.counts = {5, 0, 0, 0, 0, 5, 0, 0};  // the same epoch
  const IngestResult result = send(p, 2);
  CHECK(result.reset);
  CHECK(result.baseline);
  CHECK(result.tokens == 0);
  CHECK(admitted.counts.empty());
  for (uint32_t& cell : p.counts) cell += 10;
  CHECK(send(p, 3).tokens == 80);
}

TEST_CASE_METHOD(Fixture, "What GPUs measured starts over by itself and leaves the counts alone") {
  Publisher p = publisher();
  p.cumulative = true;
  std::vector<uint32_t> gpu_tokens(4, 700);
  const auto send_both = [&](double when) {
    CountsReport report = p.report(when);
    report.gpu_tokens = packed(gpu_tokens);
    return admitted = table.admit(report, at(when).steady);
  };
  send_both(1);
  p.counts = {2, 3, 4, 5, 5, 4, 3, 2};
  gpu_tokens.assign(4, 3);
  const IngestResult result = send_both(2);
  CHECK(result.reset);
  CHECK(result.tokens == 8);
  CHECK(admitted.gpu_tokens.empty());
  gpu_tokens.assign(4, 5);
  send_both(3);
  CHECK(admitted.gpu_tokens[0] == 2);
}

TEST_CASE_METHOD(Fixture, "No field of one message, at any edge, shuts out the next honest one") {
  const uint64_t edges[] = {uint64_t{1} << 31, (uint64_t{1} << 32) - 1, uint64_t{1} << 62,
                            uint64_t{1} << 63, UINT64_MAX};
  const double reals[] = {0,
                          -1,
                          4.7e18,
                          1.8e19,
                          std::numeric_limits<double>::max(),
                          std::numeric_limits<double>::lowest(),
                          std::numeric_limits<double>::quiet_NaN(),
                          std::numeric_limits<double>::infinity()};
  double time = 1;
  Publisher honest = publisher();
  send(honest, time);
  const auto check_honest_after = [&](const CountsReport& odd) {
    const IngestResult result = table.admit(odd, at(time).steady);
    CHECK(result.lost < 1u << 21);
    ++honest.sequence;
    time += 1;
    const IngestResult next = send(honest, time);
    CHECK_FALSE(next.rejected);
    CHECK_FALSE(next.duplicate);
    CHECK(next.tokens == 20);
    CHECK(std::isfinite(table.tokens_per_gpu_step(at(time).steady)));
  };
  for (const uint64_t edge : edges) {
    CountsReport odd = honest.report(time += 0.5);
    --honest.sequence;
    odd.sequence = edge;
    check_honest_after(odd);
    odd = honest.report(time += 0.5);
    --honest.sequence;
    odd.steps = edge;
    check_honest_after(odd);
    odd = honest.report(time += 0.5);
    --honest.sequence;
    odd.running = {edge, edge};
    check_honest_after(odd);
  }
  for (const double real : reals) {
    CountsReport odd = honest.report(time += 0.5);
    --honest.sequence;
    odd.ts = real;
    check_honest_after(odd);
    odd = honest.report(time += 0.5);
    --honest.sequence;
    odd.since = real;
    check_honest_after(odd);
  }
}

TEST_CASE_METHOD(Fixture, "A clock that was set back is silent for the timeout, not for good") {
  Publisher p = publisher();
  send(p, 1000);
  CHECK(send(p, 400).rejected == RejectReason::bad_timestamp);
  const auto send_late = [&](double ts, double when) {
    return table.admit(p.report(ts), at(when).steady);
  };
  CHECK(send_late(410, 1010).rejected == RejectReason::bad_timestamp);
  CHECK(send_late(431, 1031).baseline);
  CHECK(send_late(432, 1032).tokens == 20);
  // Numbers that start over without a new epoch, too.
  p.sequence = 0;
  CHECK(send_late(433, 1033).duplicate);
  CHECK(send_late(464, 1064).baseline);
  CHECK(send_late(465, 1065).tokens == 20);
}

TEST_CASE_METHOD(Fixture, "One message with absurd steps makes no step look empty") {
  Publisher p = publisher();
  for (int i = 1; i <= 60; ++i) send(p, i);
  const double before = table.tokens_per_gpu_step(at(60).steady);
  CountsReport odd = p.report(61);
  odd.steps = UINT64_MAX;
  table.admit(odd, at(61).steady);
  // At most a hundred steps a second where about fourteen are in the window.
  CHECK(table.tokens_per_gpu_step(at(61).steady) > before / 9);
}

TEST_CASE_METHOD(Fixture, "A group that makes many steps is believed after a few messages") {
  Publisher p = publisher();
  for (int i = 1; i <= 600; ++i) {
    CountsReport report = p.report(i * 0.1);
    report.steps = 90;  // 900 a second
    table.admit(report, at(i * 0.1).steady);
  }
  CHECK(table.tokens_per_gpu_step(at(60).steady) == Approx(10.0 / 90 / 2).epsilon(0.05));
}

TEST_CASE_METHOD(Fixture, "A clock that counts in milliseconds shows in its pace") {
  Publisher p = publisher();
  Publisher q = publisher("dp1");
  for (int i = 0; i <= 40; ++i) {
    const auto now = at(i * 0.5).steady;
    CountsReport report = p.report(0);
    report.ts = 1'700'000'000'000.0 + i * 500;
    table.admit(report, now);
    send(q, i * 0.5);
  }
  CHECK(table.sources().find("dp0")->second.counts.pace() == Approx(1000));
  CHECK(table.sources().find("dp1")->second.counts.pace() == Approx(1));
}

TEST_CASE_METHOD(Fixture, "Sources that are silent for half an hour give back what they hold") {
  Publisher p = publisher();
  send(p, 1);
  table.forget_silent(at(1700).steady);
  CHECK(table.sources().size() == 1);
  table.forget_silent(at(1802).steady);
  CHECK(table.sources().empty());
  CHECK(send(p, 1803).baseline);  // it began longer ago than counts
}
