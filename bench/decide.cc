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
#include "core/model/imbalance.h"
#include "eplbctl/virtual_group.h"

namespace {

using namespace eplbd;

constexpr int kSecondsOfAMix = 60;  // from jump to jump

// Tokens of a second: popularity as wide as routing shows, that drifts to another one within an
// hour, under the noise of counting.
class Popularity {
 public:
  explicit Popularity(const Topology& topology)
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

double rebuild_ms(const Topology& topology, std::span<const uint32_t> counts) {
  const auto deepseek = make_scratch_policy({Policy::deepseek, Hierarchical::no, 0});
  const std::vector<double> tokens(counts.begin(), counts.end());
  std::vector<double> ms;
  for (int i = 0; i < 5; ++i) {
    const auto start = Clock::now();
    deepseek->place(topology, tokens, {});
    ms.push_back(ms_between(start, Clock::now()));
  }
  return at_share(ms, 0.5);
}

double imbalance_of_step(const Topology& topology, const VirtualGroup::Step& step,
                         std::span<const uint32_t> counts) {
  const std::vector<double> tokens(counts.begin(), counts.end());
  double imbalance = 0;
  for (const auto& [placement, part] : step.served) {
    imbalance += part * imbalance_of(topology, placement, tokens).whole_model;
  }
  return imbalance;
}

void measure(const Topology& topology, int jumps) {
  VirtualGroup group(topology, {}, {});
  Popularity popularity(topology);
  std::vector<double> drifting, after_jump;
  std::span<const uint32_t> counts;
  double imbalance = 0;
  int64_t moves = 0, updates = 0;
  for (int jump = 0; jump < jumps; ++jump) {
    popularity.jump();
    for (int second = 0; second < kSecondsOfAMix; ++second) {
      counts = popularity.next();
      const VirtualGroup::Step step = group.step(counts);
      for (const auto& [decision, seconds] : step.decided) {
        if (decision.solved) (second < 10 ? after_jump : drifting).push_back(1e3 * seconds);
        if (decision.verdict != Verdict::update) continue;
        moves += decision.moves;
        ++updates;
      }
      imbalance += imbalance_of_step(topology, step, counts) / (jumps * kSecondsOfAMix);
    }
  }
  const double rebuild = rebuild_ms(topology, counts);
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
      "median, ms | p99, ms | a rebuild, ms | times a rebuild | balancedness | updates | moves |\n"
      "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
  for (int shape = 0; shape < static_cast<int>(std::size(shapes)); ++shape) {
    if (only < 0 || only == shape) measure(shapes[shape], jumps);
  }
  return 0;
}
