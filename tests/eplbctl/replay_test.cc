// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/replay.h"

#include <catch2/catch.hpp>
#include <random>

#include "core/model/migration.h"
#include "eplbctl/virtual_group.h"
#include "tests/eplbctl/temporary_file.h"

namespace eplbd {
namespace {

Topology topology() {
  Topology topology;
  topology.layers = 3;
  topology.logical_experts = 8;
  topology.slots = 12;
  topology.gpus = 4;
  return topology;
}

// Popularity turns round after half of the steps.
std::vector<std::vector<uint32_t>> steps(int count) {
  std::mt19937 random(5);
  std::vector<std::vector<uint32_t>> all;
  for (int step = 0; step < count; ++step) {
    std::vector<uint32_t> counts;
    for (int cell = 0; cell < 24; ++cell) {
      const uint32_t rank = step < count / 2 ? cell % 8 : 7 - cell % 8;
      counts.push_back(1000 * (1 + rank * rank) + random() % 100);
    }
    all.push_back(counts);
  }
  return all;
}

std::string json_of(const std::vector<std::vector<uint32_t>>& all) {
  std::string text = "[";
  for (const auto& counts : all) {
    text += text.size() > 1 ? ",[" : "[";
    for (size_t cell = 0; cell < counts.size(); ++cell) {
      if (cell % 8 == 0) text += cell > 0 ? "],[" : "[";
      text += (cell % 8 > 0 ? "," : "") + std::to_string(counts[cell]);
    }
    text += "]]";
  }
  return text + "]";
}

RebalancerOptions rules() {
  RebalancerOptions rules;
  rules.trigger = {.imbalance = 1.05,
                   .settle = 1.03,
                   .interval = std::chrono::milliseconds(100),
                   .cooldown = std::chrono::seconds(1),
                   .min_tokens = 0,
                   .min_tokens_per_gpu_step = 0,
                   .min_gain = 0.003};
  rules.limits.updates_per_hour = 0;
  return rules;
}

// As the comparison does it: slot by slot.
struct Reference {
  double mean = 0;
  double peak = 0;
  void add(const Topology& t, const Placement& placement, const std::vector<uint32_t>& counts) {
    for (int32_t layer = 0; layer < t.layers; ++layer) {
      std::vector<double> gpus(t.gpus, 0);
      std::vector<int32_t> replicas(t.logical_experts, 0);
      for (const int32_t expert : placement.layer(layer)) ++replicas[expert];
      for (int32_t slot = 0; slot < t.slots; ++slot) {
        const int32_t expert = placement.layer(layer)[slot];
        gpus[slot / 3] += static_cast<double>(counts[layer * 8 + expert]) / replicas[expert];
      }
      for (const double gpu : gpus) mean += gpu / t.gpus;
      peak += *std::max_element(gpus.begin(), gpus.end());
    }
  }
};

TEST_CASE("the score is that of serving each step before its counts are seen") {
  const auto all = steps(60);
  const TemporaryFile file(json_of(all));
  const TraceFile trace(file.name());
  const Topology shape = topology();
  for (const double apply_seconds : {0.0, 0.5, 1.0, 3.0}) {
    CAPTURE(apply_seconds);
    const ReplayScore score = replay(trace, shape, rules(), {1, apply_seconds, 1}, nullptr);
    // The same decisions, served by hand.
    VirtualGroup group(shape, rules(), {1, apply_seconds, 1});
    Placement serving = Placement::initial(shape);
    Placement next = serving;
    double due = -1;
    Reference served;
    Reference kept;
    int64_t moves = 0;
    for (size_t step = 0; step < all.size(); ++step) {
      const auto start = static_cast<double>(step);
      if (due >= 0 && start >= due) {
        serving = next;
        due = -1;
      }
      served.add(shape, serving, all[step]);
      kept.add(shape, Placement::initial(shape), all[step]);
      const VirtualGroup::Step result = group.step(all[step]);
      REQUIRE(result.decided.size() == 1);
      const Decision& decision = result.decided.front().decision;
      if (decision.verdict != Verdict::update) continue;
      CHECK(due < 0);  // nothing is decided while one is applied
      next = decision.update->placement;
      moves += count_moves(shape, serving, next).total;
      due = start + 1 + apply_seconds;
    }
    CHECK(score.balancedness == Approx(served.mean / served.peak).epsilon(1e-12));
    CHECK(score.static_balancedness == Approx(kept.mean / kept.peak).epsilon(1e-12));
    CHECK(score.moves == moves);
    CHECK(score.updates >= 2);  // at the start, and when popularity turns round
    CHECK(score.balancedness > score.static_balancedness);
    CHECK(score.steps == 60);
  }
}

TEST_CASE(
    "several sources: decided at the daemon's pace, scored as long as each placement serves") {
  const auto all = steps(60);
  const TemporaryFile file(json_of(all));
  const Topology shape = topology();
  const VirtualTime time{2, 0.5, 5};
  std::vector<ReplayStep> lines;
  const ReplayScore score = replay(TraceFile(file.name()), shape, rules(), time,
                                   [&](const ReplayStep& line) { lines.push_back(line); });
  VirtualGroup group(shape, rules(), time);
  double mean = 0;
  double peak = 0;
  int64_t moves = 0;
  int64_t decided = 0;
  size_t pieces = 0;
  for (size_t step = 0; step < all.size(); ++step) {
    const VirtualGroup::Step result = group.step(all[step]);
    CHECK(result.decided.size() == 20);
    pieces = std::max(pieces, result.served.size());
    double parts = 0;
    for (const auto& [placement, part] : result.served) {
      Reference served;
      served.add(shape, placement, all[step]);
      mean += part * served.mean;
      peak += part * served.peak;
      parts += part;
    }
    CHECK(parts == Approx(1).epsilon(1e-9));
    int64_t of_step = 0;
    for (const auto& [decision, seconds] : result.decided) {
      if (decision.verdict == Verdict::update) of_step += decision.moves;
      ++decided;
    }
    CHECK(lines[step].moves == of_step);
    moves += of_step;
  }
  CHECK(score.balancedness == Approx(mean / peak).epsilon(1e-12));
  CHECK(score.moves == moves);
  CHECK(pieces > 1);  // an update served from within a step on
  int64_t verdicts = 0;
  for (const auto& [verdict, times] : score.verdicts) verdicts += times;
  CHECK(verdicts == decided);
  CHECK(score.updates >= 2);
}

TEST_CASE("the first step's counts are decided from at once") {
  VirtualGroup group(topology(), rules(), {1, 0, 1});
  const VirtualGroup::Step result = group.step(steps(60).front());
  REQUIRE(result.decided.size() == 1);
  CHECK(result.decided.front().decision.verdict == Verdict::update);
}

TEST_CASE("applying slowly costs balance, and a budget is kept") {
  const TemporaryFile file(json_of(steps(60)));
  const TraceFile trace(file.name());
  const ReplayScore fast = replay(trace, topology(), rules(), {}, nullptr);
  const ReplayScore slow = replay(trace, topology(), rules(), {1, 10, 1}, nullptr);
  CHECK(slow.balancedness < fast.balancedness);
  CHECK(slow.updates <= fast.updates);
  RebalancerOptions tight = rules();
  tight.limits.max_moves = 2;
  int64_t worst = 0;
  replay(trace, topology(), tight, {},
         [&](const ReplayStep& step) { worst = std::max(worst, step.moves); });
  CHECK(worst > 0);
  CHECK(worst <= 2);
}

TEST_CASE("a trace without any tokens moves nothing") {
  const TemporaryFile file(json_of(std::vector(5, std::vector<uint32_t>(24, 0))));
  const ReplayScore score = replay(TraceFile(file.name()), topology(), rules(), {}, nullptr);
  CHECK(score.balancedness == 1);
  CHECK(score.updates == 0);
}

}  // namespace
}  // namespace eplbd
