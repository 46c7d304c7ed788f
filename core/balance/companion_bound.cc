// SPDX-License-Identifier: Apache-2.0
#include "core/balance/companion_bound.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace eplbd {
namespace {

// Rounding must not call a peak impossible that can just be reached.
constexpr double kSlack = 1 + 1e-9;
constexpr int32_t kLevels = 64;  // of a, evenly up to T / 2
constexpr int kRounds = 100;
// The bound is found as exactly; from `known` on in steps that double.
constexpr double kExact = 1e-3;

class CompanionRefuter {
 public:
  CompanionRefuter(std::span<const double> weights, int32_t gpus, int32_t slots_per_gpu)
      : weights_(weights),
        gpus_(gpus),
        width_(slots_per_gpu),
        families_(slots_per_gpu - 1),
        spare_(gpus * slots_per_gpu - static_cast<int32_t>(weights.size())),
        most_(std::min(gpus, spare_ + 1)) {}

  bool refutes(double peak) {
    if (!classify(peak)) return true;
    log_weight_.assign(static_cast<size_t>(families_) * kLevels, 0);
    for (int round = 0; round < kRounds; ++round) {
      spread_weights();
      if (allocate() > kSlack - 1) return true;
      learn(round);
    }
    return false;
  }

 private:
  // From so many replicas of an expert to more, at what cost a replica.
  struct Segment {
    double slope;
    int32_t expert, from, to;
  };

  // Levels at which family i counts: a <= T / (2 i).
  static int32_t levels(int32_t i) { return kLevels / i; }

  // False: an expert cannot be light enough with as many replicas as it may have.
  bool classify(double peak) {
    const double step = peak / 2 / kLevels;
    const auto experts = static_cast<int32_t>(weights_.size());
    least_.resize(weights_.size());
    levels_of_.resize(weights_.size() * most_ * (families_ + 1));
    for (int32_t expert = 0; expert < experts; ++expert) {
      least_[expert] =
          std::max(1, static_cast<int32_t>(std::ceil(weights_[expert] / (peak * kSlack))));
      if (least_[expert] > most_) return false;
      for (int32_t count = least_[expert]; count <= most_; ++count) {
        const double share = weights_[expert] / count;
        int32_t* const at = levels_of(expert, count);
        // Level c stands for a = (c + 1) * step; what is just there counts as light, not as heavy.
        at[0] = std::min(static_cast<int32_t>(share / (step * kSlack)), kLevels);
        for (int32_t i = 1; i <= families_; ++i) {
          const auto level = static_cast<int32_t>((peak * kSlack - share) / (i * step));
          at[i] = level < levels(i) ? level : kLevels;
        }
      }
    }
    return true;
  }

  // Of an expert with so many replicas: the first level at which each of them is light, then by
  // family the first at which it is heavy. kLevels: at none.
  int32_t* levels_of(int32_t expert, int32_t count) {
    return &levels_of_[(static_cast<size_t>(expert) * most_ + count - 1) * (families_ + 1)];
  }

  // above_[i][c]: the weight of family i's inequalities from level c on; they sum to 1 over all.
  void spread_weights() {
    const double top = *std::max_element(log_weight_.begin(), log_weight_.end());
    above_.assign(static_cast<size_t>(families_) * (kLevels + 1), 0);
    lights_.assign(kLevels + 1, 0);
    double sum = 0;
    for (int32_t i = 1; i <= families_; ++i) {
      double* const above = above_.data() + (i - 1) * (kLevels + 1);
      for (int32_t level = levels(i) - 1; level >= 0; --level) {
        const double weight = std::exp(log_weight_[(i - 1) * kLevels + level] - top);
        sum += weight;
        above[level] = above[level + 1] + weight;
      }
    }
    for (double& weight : above_) weight /= sum;
    for (int32_t i = 0; i < families_; ++i) {
      for (int32_t c = 0; c <= kLevels; ++c) lights_[c] += above_[i * (kLevels + 1) + c];
    }
  }

  double cost(int32_t expert, int32_t count) {
    const int32_t* const at = levels_of(expert, count);
    double each = -lights_[at[0]];
    for (int32_t i = 1; i <= families_; ++i) {
      each += (width_ - i) * above_[(i - 1) * (kLevels + 1) + at[i]];
    }
    return each * count;
  }

  // The least of the weighted sum over all counts that fill the slots, relaxed; taken_ has them.
  double allocate() {
    segments_.clear();
    double total = 0;
    int32_t open = gpus_ * width_;
    for (int32_t expert = 0; expert < static_cast<int32_t>(weights_.size()); ++expert) {
      total += cost(expert, least_[expert]);
      open -= least_[expert];
      add_hull(expert);
    }
    if (open < 0) return 1;  // too few slots
    std::sort(segments_.begin(), segments_.end(),
              [](const Segment& a, const Segment& b) { return a.slope < b.slope; });
    taken_.clear();
    for (const Segment& segment : segments_) {
      const int32_t replicas = std::min(open, segment.to - segment.from);
      if (replicas == 0) break;
      taken_.push_back({segment, static_cast<double>(replicas) / (segment.to - segment.from)});
      total += segment.slope * replicas;
      open -= replicas;
    }
    return total;
  }

  // The lower convex hull of the expert's cost over its counts, as segments.
  void add_hull(int32_t expert) {
    const auto first = static_cast<ptrdiff_t>(segments_.size());
    double last_cost = cost(expert, least_[expert]);
    for (int32_t count = least_[expert] + 1; count <= most_; ++count) {
      const double next = cost(expert, count);
      Segment segment{next - last_cost, expert, count - 1, count};
      while (static_cast<ptrdiff_t>(segments_.size()) > first &&
             segments_.back().slope >= segment.slope) {
        const Segment& before = segments_.back();
        const int32_t width = segment.to - before.from;
        segment.slope = (segment.slope * (segment.to - segment.from) +
                         before.slope * (before.to - before.from)) /
                        width;
        segment.from = before.from;
        segments_.pop_back();
      }
      segments_.push_back(segment);
      last_cost = next;
    }
  }

  // An inequality that the counts break gets more weight.
  void learn(int round) {
    excess_.assign(log_weight_.size(), 0);
    for (int32_t expert = 0; expert < static_cast<int32_t>(weights_.size()); ++expert) {
      count_in(expert, least_[expert], 1);
    }
    for (const Taken& taken : taken_) {
      count_in(taken.segment.expert, taken.segment.from, -taken.part);
      count_in(taken.segment.expert, taken.segment.to, taken.part);
    }
    double most = 1;
    for (int32_t i = 1; i <= families_; ++i) {
      double* const row = excess_.data() + (i - 1) * kLevels;
      for (int32_t c = 1; c < kLevels; ++c) row[c] += row[c - 1];
      for (int32_t c = 0; c < levels(i); ++c) most = std::max(most, std::abs(row[c]));
    }
    const double rate = 1 / (most * std::sqrt(1 + round / 10.0));
    for (size_t at = 0; at < excess_.size(); ++at) log_weight_[at] += rate * excess_[at];
  }

  void count_in(int32_t expert, int32_t count, double part) {
    const int32_t* const at = levels_of(expert, count);
    for (int32_t i = 1; i <= families_; ++i) {
      double* const row = excess_.data() + (i - 1) * kLevels;
      if (at[0] < kLevels) row[at[0]] -= part * count;
      if (at[i] < kLevels) row[at[i]] += part * count * (width_ - i);
    }
  }

  struct Taken {
    Segment segment;
    double part;
  };

  std::span<const double> weights_;
  const int32_t gpus_;
  const int32_t width_;             // slots of a GPU
  const int32_t families_;          // i = 1 .. families
  const int32_t spare_;             // slots beyond one an expert
  const int32_t most_;              // replicas of an expert
  std::vector<int32_t> least_;      // [experts] replicas
  std::vector<int32_t> levels_of_;  // [experts, most, 1 + families]
  std::vector<double> log_weight_;  // [families, levels]
  std::vector<double> above_;       // [families, levels + 1]
  std::vector<double> lights_;      // [levels + 1] their sum over families
  std::vector<double> excess_;      // [families, levels]
  std::vector<Segment> segments_;
  std::vector<Taken> taken_;
};

}  // namespace

double companion_bound(std::span<const double> weights, int32_t gpus, int32_t slots_per_gpu,
                       double known) {
  CompanionRefuter refuter(weights, gpus, slots_per_gpu);
  double impossible = known;  // below it, that is
  double step = kExact * known;
  while (refuter.refutes(impossible + step)) {
    impossible += step;
    step *= 2;
  }
  for (double open = step / 2; open >= kExact * known; open /= 2) {
    if (refuter.refutes(impossible + open)) impossible += open;
  }
  return impossible;
}

}  // namespace eplbd
