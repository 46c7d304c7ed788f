// What a decision takes, beside one rebuild by DeepSeek's algorithm in the same run, by shape:
// while the traffic drifts, and after it jumped, when about every expert has another load.
//   bench_decide [JUMPS [SHAPE]]
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <span>
#include <vector>

#include "bench/milliseconds.h"
#include "bench/shapes.h"
#include "core/balance/scratch_policy.h"
#include "core/decide/rebalancer.h"
#include "core/model/imbalance.h"

namespace {

using namespace eplbd;

constexpr int kSecondsOfAMix = 60;  // from jump to jump

Now at(double seconds) { return {TimePoint(from_seconds(1000 + seconds)), 1e9 + seconds}; }

// Tokens of a second: popularity as wide as routing shows, that drifts to another one within an
// hour, under the noise of counting.
class Traffic {
 public:
  explicit Traffic(const Topology& topology)
      : popularity_(static_cast<size_t>(topology.layers) * topology.logical_experts),
        counts_(popularity_.size()) {
    jump();
  }

  void jump() {
    for (double& popularity : popularity_) popularity = normal_(random_);
  }

  std::span<const uint32_t> next() {
    constexpr double kKept = 0.9995;
    const double added = std::sqrt(1 - kKept * kKept);
    for (size_t i = 0; i < counts_.size(); ++i) {
      popularity_[i] = kKept * popularity_[i] + added * normal_(random_);
      const double tokens = 400 * std::exp(popularity_[i]);
      counts_[i] =
          static_cast<uint32_t>(std::max(tokens + std::sqrt(tokens) * normal_(random_), 0.0));
    }
    return counts_;
  }

 private:
  std::mt19937 random_{1};
  std::normal_distribution<double> normal_;
  std::vector<double> popularity_;  // logarithms
  std::vector<uint32_t> counts_;
};

// A group that does at once what is decided.
class Served {
 public:
  explicit Served(const Topology& topology) : rebalancer_(topology, {}, at(0)), traffic_(topology) {
    report({}, rebalancer_.group().in_force());
  }

  void jump() { traffic_.jump(); }

  // The decision after one more second, and the milliseconds that it took.
  std::pair<Decision, double> second() {
    const auto counts = traffic_.next();
    CountsReport report;
    report.source = "dp0";
    report.epoch = 1;
    report.sequence = static_cast<uint64_t>(seconds_);
    report.since = 1e9;
    report.ts = at(++seconds_).unix_seconds;
    report.steps = 10;
    report.running = rebalancer_.group().running();
    report.counts = PackedArray<uint32_t>(counts);
    const Now now = at(seconds_);
    rebalancer_.ingest(report, now);
    const auto start = Clock::now();
    rebalancer_.advance(now);
    Decision decision = rebalancer_.decide(now);
    const double ms = ms_between(start, Clock::now());
    tokens_.assign(counts.begin(), counts.end());
    if (rebalancer_.record(decision) && decision.update) {
      this->report(decision.update->id, decision.update->placement);
    }
    return {std::move(decision), ms};
  }

  double imbalance() const {
    return imbalance_of(rebalancer_.topology(), rebalancer_.group().in_force(), tokens_)
        .whole_model;
  }
  std::span<const double> tokens() const { return tokens_; }

 private:
  void report(PlacementId id, const Placement& map) {
    StateReport report;
    report.source = "head";
    report.epoch = 1;
    report.sequence = states_++;
    report.running = id;
    report.set_map(rebalancer_.topology(), map);
    rebalancer_.observe(report, at(seconds_));
  }

  Rebalancer rebalancer_;
  Traffic traffic_;
  int64_t seconds_ = 0;
  uint64_t states_ = 0;
  std::vector<double> tokens_;
};

double rebuild_ms(const Topology& topology, std::span<const double> tokens) {
  const auto deepseek = make_scratch_policy({Policy::deepseek, Hierarchical::no, 0});
  std::vector<double> ms;
  for (int i = 0; i < 5; ++i) {
    const auto start = Clock::now();
    deepseek->place(topology, tokens, {});
    ms.push_back(ms_between(start, Clock::now()));
  }
  return at_share(ms, 0.5);
}

void measure(const Topology& topology, int jumps) {
  Served served(topology);
  std::vector<double> drifting, after_jump;
  double imbalance = 0;
  int64_t moves = 0, updates = 0;
  for (int jump = 0; jump < jumps; ++jump) {
    served.jump();
    for (int second = 0; second < kSecondsOfAMix; ++second) {
      const auto [decision, ms] = served.second();
      if (decision.solved) (second < 10 ? after_jump : drifting).push_back(ms);
      if (decision.update) {
        moves += decision.moves;
        ++updates;
      }
      imbalance += served.imbalance() / (jumps * kSecondsOfAMix);
    }
  }
  const double rebuild = rebuild_ms(topology, served.tokens());
  std::printf(
      "| %d x %d, %d slots on %d | %zu | %.1f | %.1f | %zu | %.1f | %.1f | %.1f | %.1f | %.3f | "
      "%lld | %lld |\n",
      topology.layers, topology.logical_experts, topology.slots, topology.gpus, after_jump.size(),
      at_share(after_jump, 0.5), at_share(after_jump, 0.99), drifting.size(),
      at_share(drifting, 0.5), at_share(drifting, 0.99), rebuild,
      at_share(after_jump, 0.99) / rebuild, 1 / imbalance, static_cast<long long>(updates),
      static_cast<long long>(moves));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int jumps = argc > 1 ? std::atoi(argv[1]) : 10;
  const int only = argc > 2 ? std::atoi(argv[2]) : -1;
  const Topology shapes[] = {topology_of(24, 32, 40, 8), topology_of(58, 256, 288, 32),
                             topology_of(58, 256, 288, 72), topology_of(58, 256, 288, 144),
                             topology_of(61, 512, 1024, 256)};
  std::puts(
      "| layers x experts, slots on GPUs | after a jump | median, ms | p99, ms | drifting | "
      "median, "
      "ms | p99, ms | a rebuild, ms | times a rebuild | balancedness | updates | moves |\n"
      "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
  for (int shape = 0; shape < static_cast<int>(std::size(shapes)); ++shape) {
    if (only < 0 || only == shape) measure(shapes[shape], jumps);
  }
  return 0;
}
