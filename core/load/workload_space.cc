// SPDX-License-Identifier: Apache-2.0
#include "core/load/workload_space.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <numeric>

namespace eplbd {
namespace {

// Of what was learnt, a hundredth is forgotten with each load: a new workload enters soon, an old
// one is remembered for some hundred loads.
constexpr float kKept = 0.995f;
// Cells of all rows of the sketch that stay in the nearest cache together.
constexpr size_t kStretch = 512;
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

void WorkloadSpace::multiply_row(size_t row) {
  for (size_t other = 0; other <= row; ++other) {
    const double product = dot(sketch_row(row), sketch_row(other));
    products_[row * kRows + other] = products_[other * kRows + row] = product;
  }
}

void WorkloadSpace::add(std::span<const float> load) {
  for (float& cell : sketch_) cell *= kKept;
  for (double& product : products_) product *= kKept * kKept;
  sketch_.insert(sketch_.end(), load.begin(), load.end());
  const size_t rows = sketch_.size() / cells_;
  multiply_row(rows - 1);
  const Eigen::MatrixXd gram =
      Eigen::Map<const Eigen::MatrixXd>(products_.data(), kRows, kRows).topLeftCorner(rows, rows);
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(gram);
  // It has the smallest first.
  const auto column = [&](size_t rank) { return static_cast<Eigen::Index>(rows - 1 - rank); };
  const auto value = [&](size_t rank) { return eigen.eigenvalues()(column(rank)); };
  size_t count = 0;
  const double least = kLeastStrength * value(0);
  while (count < std::min(rows, kDirections) && value(count) > least) ++count;

  directions_.assign(count * cells_, 0);
  for (size_t first = 0; first < cells_; first += kStretch) {
    const size_t end = std::min(first + kStretch, cells_);
    for (size_t k = 0; k < count; ++k) {
      float* const direction = directions_.data() + k * cells_;
      for (size_t row = 0; row < rows; ++row) {
        const auto weight =
            static_cast<float>(eigen.eigenvectors()(row, column(k)) / std::sqrt(value(k)));
        const auto source = sketch_row(row);
        for (size_t i = first; i < end; ++i) direction[i] += weight * source[i];
      }
    }
  }
  if (rows < kRows) return;

  // Full: only the directions stay, each as strong as it is beyond the first that is dropped.
  const double dropped = std::max(value(kDirections), 0.0);
  sketch_ = directions_;
  for (size_t k = 0; k < count; ++k) {
    const auto strength = static_cast<float>(std::sqrt(std::max(value(k) - dropped, 0.0)));
    for (float& cell : sketch_row(k)) cell *= strength;
    multiply_row(k);
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
