// Where LayerSearch evens out weights that are multiples of a quantum (tokens come one by one, or
// in batches): a replica of an expert that has two may carry half a quantum more than whole ones,
// and a GPU's load is whole but for such fractions. Which of them lie together decides how low the
// fullest GPU can come, so they are settled before the rest is evened out.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "core/balance/scratch/layer_search.h"

namespace eplbd {
namespace {

// A sum of whole steps this near to a whole one is one.
constexpr double kWhole = 1e-4;
// Of a quantum, by which targets are raised: what few replicas make of it, or finer than counts.
constexpr int32_t kMostParts = 60;
// Random exchanges to get past a target: at each, and in all.
constexpr int32_t kDisplacements = 4;
constexpr int32_t kMostDisplacements = 16;

double fraction_of(double steps) { return std::max(steps - std::floor(steps + kWhole), 0.0); }

}  // namespace

// What a GPU stays below the target in any case, as whole quanta come and go.
double LayerSearch::unused(int32_t gpu) const {
  const double quantum = evening_.quantum;
  return quantum == 0 ? 0 : fraction_of(-excess(gpu) / quantum) * quantum;
}

// Of the open GPUs together, what is to spare below the target.
double LayerSearch::open_room() const {
  double room = 0;
  for (int32_t gpu = 0; gpu < gpus_; ++gpu) {
    if (evening_.open[gpu]) room -= excess(gpu) + unused(gpu);
  }
  return room + gpus_ * kWhole * evening_.quantum;
}

// Raises the target to what whole quanta can reach, as little as it finds a way to.
void LayerSearch::settle_fractions(Random& random) {
  Evening& e = evening_;
  if (open_room() >= 0) return;
  const double part = e.quantum / list_fractions();
  const double even = std::accumulate(state_.tokens.begin(), state_.tokens.end(), 0.0) /
                      std::accumulate(speed_.begin(), speed_.end(), 0.0);
  e.target = part * std::max(std::floor(e.target / part + kWhole), std::ceil(even / part - kWhole));
  for (int32_t left = kMostDisplacements;; e.target += part) {
    const int32_t tries = std::min(kDisplacements, left);
    for (int32_t i = 0; i <= tries; ++i) {
      if (i > 0) displace_fraction(random);
      while (open_room() < 0 && exchange_fractions()) {
      }
      if (open_room() >= 0) return;
    }
    left -= tries;
  }
}

// Returns how many equal parts of a quantum they are made of.
int32_t LayerSearch::list_fractions() {
  Evening& e = evening_;
  int32_t parts = 1;
  e.fraction.resize(state_.expert_at.size());
  e.unused.resize(static_cast<size_t>(gpus_));
  e.fractional.clear();
  for (size_t slot = 0; slot < e.fraction.size(); ++slot) {
    const int32_t expert = state_.expert_at[slot];
    e.fraction[slot] = fraction_of(state_.share[expert] / e.quantum);
    if (e.fraction[slot] < kWhole) continue;
    e.fractional.push_back(static_cast<int32_t>(slot));
    parts = std::min(std::lcm(parts, state_.count[expert]), kMostParts);
  }
  return parts;
}

// The exchange, of replicas as near in weight as there are, that leaves two GPUs a quantum less
// unused.
bool LayerSearch::exchange_fractions() {
  Evening& e = evening_;
  for (int32_t gpu = 0; gpu < gpus_; ++gpu) e.unused[gpu] = unused(gpu) / e.quantum + kWhole;
  double least = std::numeric_limits<double>::infinity();
  std::pair<int32_t, int32_t> best;
  for (const int32_t slot : e.fractional) {
    const int32_t gpu = slot / slots_per_gpu_;
    const int32_t expert = state_.expert_at[slot];
    for (int32_t other_gpu = 0; other_gpu < gpus_; ++other_gpu) {
      if (e.unused[gpu] + e.unused[other_gpu] < 1 || holds(other_gpu, expert)) continue;
      const int32_t end = (other_gpu + 1) * slots_per_gpu_;
      for (int32_t other = end - slots_per_gpu_; other < end; ++other) {
        double given = e.fraction[slot] - e.fraction[other];
        if (given < 0) given += 1;
        if (given > e.unused[other_gpu] || given + e.unused[gpu] < 1) continue;
        const int32_t other_expert = state_.expert_at[other];
        const double change = std::abs(state_.share[expert] - state_.share[other_expert]);
        if (change >= least || holds(gpu, other_expert)) continue;
        least = change;
        best = {slot, other};
      }
    }
  }
  if (std::isinf(least)) return false;
  exchange_fraction(best.first, best.second);
  return true;
}

// A random exchange.
void LayerSearch::displace_fraction(Random& random) {
  Evening& e = evening_;
  if (e.fractional.empty()) return;
  const int32_t slot = e.fractional[random.below(static_cast<int32_t>(e.fractional.size()))];
  const int32_t other = random.below(gpus_ * slots_per_gpu_);
  if (holds(other / slots_per_gpu_, state_.expert_at[slot])) return;
  if (holds(slot / slots_per_gpu_, state_.expert_at[other])) return;
  exchange_fraction(slot, other);
}

void LayerSearch::exchange_fraction(int32_t slot, int32_t other) {
  Evening& e = evening_;
  exchange_items(e.item_at[slot], e.item_at[other]);
  std::swap(e.fraction[slot], e.fraction[other]);
  if (e.fraction[slot] < kWhole) *std::find(e.fractional.begin(), e.fractional.end(), slot) = other;
}

}  // namespace eplbd
