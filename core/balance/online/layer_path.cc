// SPDX-License-Identifier: Apache-2.0
#include "core/balance/online/layer_path.h"

#include <algorithm>

#include "core/model/placement.h"

namespace eplbd {

std::pair<size_t, double> LayerPath::best_stretch(size_t end) const {
  std::pair<size_t, double> best{taken, 0};
  for (size_t to = taken + 1; to <= end; ++to) {
    const double merit = weight * (gain(to) - gain(taken)) / std::max(moves(to) - moves(taken), 1);
    if (merit > best.second) best = {to, merit};
  }
  return best;
}

StepTaker::StepTaker(const Topology& topology, const MoveBudget& budget, std::vector<int32_t> map)
    : topology_(topology), budget_(budget), map_(std::move(map)), incoming_(topology.gpus) {}

std::span<int32_t> StepTaker::row(int32_t layer) {
  return std::span(map_).subspan(static_cast<size_t>(layer) * topology_.slots, topology_.slots);
}

std::span<const int32_t> StepTaker::layer(int32_t layer) const {
  return std::span(map_).subspan(static_cast<size_t>(layer) * topology_.slots, topology_.slots);
}

void StepTaker::require(int32_t layer, std::span<const int32_t> slot_to_expert) {
  const auto before = row(layer);
  for (int32_t slot = 0; slot < topology_.slots; ++slot) {
    if (slot_to_expert[slot] == before[slot] || slot_to_expert[slot] == kNoExpert) continue;
    ++incoming_[topology_.gpu_of(slot)];
    ++moves_;
  }
  std::copy(slot_to_expert.begin(), slot_to_expert.end(), before.begin());
}

void StepTaker::take(std::vector<LayerPath>& paths) {
  while (true) {
    LayerPath* best = nullptr;
    std::pair<size_t, double> stretch{0, 0};
    for (LayerPath& path : paths) {
      const auto next = path.best_stretch(affordable(path));
      if (next.second > stretch.second) {
        stretch = next;
        best = &path;
      }
    }
    if (!best) return;
    for (; best->taken < stretch.first; ++best->taken) take_step(*best);
  }
}

void StepTaker::take_step(const LayerPath& path) {
  const ClimbStep& step = path.points[path.taken].step;
  for (int32_t i = 0; i < step.count; ++i) {
    row(path.layer)[step.changes[i].slot] = step.changes[i].expert;
    ++incoming_[topology_.gpu_of(step.changes[i].slot)];
  }
  moves_ += step.moves;
}

// How far along a path the budget reaches from where it is.
size_t StepTaker::affordable(const LayerPath& path) const {
  if (budget_.moves == 0 && budget_.moves_per_gpu == 0) return path.points.size();
  std::vector<int64_t> incoming = incoming_;
  size_t end = path.taken;
  for (; end < path.points.size(); ++end) {
    const LayerPath::Point& point = path.points[end];
    const int64_t moves = moves_ + point.moves - path.moves(path.taken);
    if (budget_.moves > 0 && moves > budget_.moves) break;
    bool fits = true;
    for (int32_t i = 0; i < point.step.count; ++i) {
      const int64_t received = ++incoming[topology_.gpu_of(point.step.changes[i].slot)];
      fits = fits && (budget_.moves_per_gpu == 0 || received <= budget_.moves_per_gpu);
    }
    if (!fits) break;
  }
  return end;
}

std::vector<char> StepTaker::full_gpus() const {
  std::vector<char> full(incoming_.size());
  for (size_t gpu = 0; gpu < full.size(); ++gpu) {
    full[gpu] = budget_.moves_per_gpu > 0 && incoming_[gpu] >= budget_.moves_per_gpu;
  }
  return full;
}

}  // namespace eplbd
