// SPDX-License-Identifier: Apache-2.0
#include "core/load/workload_space.h"

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

// A symmetric matrix [size, size] and its eigenvectors, by Jacobi's rotations.
class Eigen {
 public:
  Eigen(std::vector<double> matrix, size_t size)
      : size_(size), matrix_(std::move(matrix)), vectors_(size * size) {
    for (size_t i = 0; i < size; ++i) vectors_[i * size + i] = 1;
    constexpr int kSweeps = 12;  // it converges quadratically; six are usual
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      for (size_t p = 0; p < size; ++p) {
        for (size_t q = p + 1; q < size; ++q) rotate(p, q);
      }
    }
    order_.resize(size);
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::stable_sort(order_.begin(), order_.end(),
                     [&](size_t a, size_t b) { return at(a, a) > at(b, b); });
  }

  // The largest first.
  double value(size_t rank) const { return matrix_[order_[rank] * (size_ + 1)]; }
  double vector(size_t rank, size_t i) const { return vectors_[i * size_ + order_[rank]]; }

 private:
  double& at(size_t row, size_t column) { return matrix_[row * size_ + column]; }

  void rotate(size_t p, size_t q) {
    if (at(p, q) == 0) return;
    const double theta = (at(q, q) - at(p, p)) / (2 * at(p, q));
    const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::hypot(theta, 1.0));
    const double c = 1 / std::hypot(t, 1.0);
    const double s = t * c;
    const auto turn = [&](double& x, double& y) {
      const double old = x;
      x = c * old - s * y;
      y = s * old + c * y;
    };
    for (size_t i = 0; i < size_; ++i) turn(at(i, p), at(i, q));
    for (size_t i = 0; i < size_; ++i) turn(at(p, i), at(q, i));
    for (size_t i = 0; i < size_; ++i) turn(vectors_[i * size_ + p], vectors_[i * size_ + q]);
  }

  size_t size_;
  std::vector<double> matrix_;
  std::vector<double> vectors_;  // a column each
  std::vector<size_t> order_;
};

}  // namespace

void WorkloadSpace::add(std::span<const float> load) {
  for (float& value : sketch_) value *= kKept;
  sketch_.insert(sketch_.end(), load.begin(), load.end());
  const size_t rows = sketch_.size() / cells_;
  std::vector<double> gram(rows * rows);
  for (size_t a = 0; a < rows; ++a) {
    for (size_t b = 0; b <= a; ++b) {
      gram[a * rows + b] = gram[b * rows + a] = dot(sketch_row(a), sketch_row(b));
    }
  }
  const Eigen eigen(std::move(gram), rows);
  size_t count = 0;
  const double least = kLeastStrength * eigen.value(0);
  while (count < std::min(rows, kDirections) && eigen.value(count) > least) ++count;

  directions_.assign(count * cells_, 0);
  for (size_t k = 0; k < count; ++k) {
    float* const direction = directions_.data() + k * cells_;
    for (size_t row = 0; row < rows; ++row) {
      const auto weight = static_cast<float>(eigen.vector(k, row) / std::sqrt(eigen.value(k)));
      const auto source = sketch_row(row);
      for (size_t i = 0; i < cells_; ++i) direction[i] += weight * source[i];
    }
  }
  if (rows < kRows) return;

  // Full: only the directions stay, each as strong as it is beyond the first that is dropped.
  const double dropped = std::max(eigen.value(kDirections), 0.0);
  sketch_ = directions_;
  for (size_t k = 0; k < count; ++k) {
    const auto strength = static_cast<float>(std::sqrt(std::max(eigen.value(k) - dropped, 0.0)));
    for (float& value : sketch_row(k)) value *= strength;
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
