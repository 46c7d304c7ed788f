// SPDX-License-Identifier: Apache-2.0
#include "core/load/workload_space.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <numeric>

namespace eplbd {
namespace {

constexpr size_t kRows = 2 * WorkloadSpace::kDirections;
// Of what was learnt, a hundredth is forgotten with each load: a new workload enters soon, an old
// one is remembered for some hundred loads.
constexpr float kKept = 0.995f;
// Directions this much weaker than the strongest are rounding.
constexpr double kLeastStrength = 1e-9;

double dot(std::span<const float> a, std::span<const float> b) {
  // Several sums side by side, so that the compiler may use vector registers.
  constexpr size_t kLanes = 16;
  float sums[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= a.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  double sum = std::accumulate(sums, sums + kLanes, 0.0);
  for (; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

}  // namespace

void WorkloadSpace::add(std::span<const float> load) {
  for (float& cell : sketch_) cell *= kKept;
  sketch_.insert(sketch_.end(), load.begin(), load.end());
  const size_t rows = sketch_.size() / cells_;
  Eigen::MatrixXd gram(rows, rows);
  for (size_t a = 0; a < rows; ++a) {
    for (size_t b = 0; b <= a; ++b) gram(a, b) = gram(b, a) = dot(sketch_row(a), sketch_row(b));
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(gram);
  // It has the smallest first.
  const auto column = [&](size_t rank) { return static_cast<Eigen::Index>(rows - 1 - rank); };
  const auto value = [&](size_t rank) { return eigen.eigenvalues()(column(rank)); };
  size_t count = 0;
  const double least = kLeastStrength * value(0);
  while (count < std::min(rows, kDirections) && value(count) > least) ++count;

  directions_.assign(count * cells_, 0);
  for (size_t k = 0; k < count; ++k) {
    float* const direction = directions_.data() + k * cells_;
    for (size_t row = 0; row < rows; ++row) {
      const auto weight =
          static_cast<float>(eigen.eigenvectors()(row, column(k)) / std::sqrt(value(k)));
      const auto source = sketch_row(row);
      for (size_t i = 0; i < cells_; ++i) direction[i] += weight * source[i];
    }
  }
  if (rows < kRows) return;

  // Full: only the directions stay, each as strong as it is beyond the first that is dropped.
  const double dropped = std::max(value(kDirections), 0.0);
  sketch_ = directions_;
  for (size_t k = 0; k < count; ++k) {
    const auto strength = static_cast<float>(std::sqrt(std::max(value(k) - dropped, 0.0)));
    for (float& cell : sketch_row(k)) cell *= strength;
  }
}

void WorkloadSpace::project(std::span<const float> load, std::span<double> out) const {
  for (size_t k = 0; k < out.size(); ++k) {
    out[k] = dot({directions_.data() + k * cells_, cells_}, load);
  }
}

void WorkloadSpace::add_to(std::span<float> load, std::span<const double> position) const {
  for (size_t k = 0; k < position.size(); ++k) {
    const float* const direction = directions_.data() + k * cells_;
    const auto weight = static_cast<float>(position[k]);
    for (size_t i = 0; i < cells_; ++i) load[i] += weight * direction[i];
  }
}

}  // namespace eplbd
