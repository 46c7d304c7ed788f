// SPDX-License-Identifier: Apache-2.0
#include "core/balance/scratch/region_state.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace eplbd {

void RegionState::reset(std::span<const double> weights, std::span<const double> speeds,
                        int32_t slots_per_gpu_now) {
  experts = static_cast<int32_t>(weights.size());
  gpus = static_cast<int32_t>(speeds.size());
  slots_per_gpu = slots_per_gpu_now;
  words_ = (speeds.size() + 63) / 64;
  weight.assign(weights.begin(), weights.end());
  speed.assign(speeds.begin(), speeds.end());
  inverse_speed.resize(speeds.size());
  for (int32_t gpu = 0; gpu < gpus; ++gpu) inverse_speed[gpu] = 1 / speed[gpu];
  alike = std::all_of(speeds.begin(), speeds.end(), [&](double s) { return s == speeds[0]; });
  mean = std::accumulate(weight.begin(), weight.end(), 0.0) /
         std::accumulate(speed.begin(), speed.end(), 0.0);
  version.resize(speeds.size());
  tokens.resize(speeds.size());
  expert_at.resize(static_cast<size_t>(slots()));
  clear(std::vector<int32_t>(weights.size(), 1));
}

void RegionState::clear(std::span<const int32_t> counts) {
  count.assign(counts.begin(), counts.end());
  share.resize(weight.size());
  for (int32_t expert = 0; expert < experts; ++expert)
    share[expert] = weight[expert] / count[expert];
  holders_.assign(weight.size() * words_, 0);
  std::fill(tokens.begin(), tokens.end(), 0.0);
  std::fill(expert_at.begin(), expert_at.end(), -1);
  for (uint32_t& v : version) ++v;
}

void RegionState::load(std::span<const int32_t> placement) {
  std::vector<int32_t> counts(weight.size());
  for (const int32_t expert : placement) ++counts[expert];
  clear(counts);
  for (int32_t slot = 0; slot < slots(); ++slot) put(gpu_of(slot), slot, placement[slot]);
}

void RegionState::take(int32_t gpu, int32_t slot) {
  const int32_t expert = std::exchange(expert_at[slot], -1);
  tokens[gpu] -= share[expert];
  flip(gpu, expert);
}

void RegionState::exchange(int32_t slot, int32_t other) {
  const int32_t gpu = gpu_of(slot);
  const int32_t other_gpu = gpu_of(other);
  const int32_t expert = expert_at[slot];
  const int32_t other_expert = expert_at[other];
  const double given = share[expert] - share[other_expert];
  tokens[gpu] -= given;
  tokens[other_gpu] += given;
  for (const int32_t moved : {expert, other_expert}) {
    flip(gpu, moved);
    flip(other_gpu, moved);
  }
  std::swap(expert_at[slot], expert_at[other]);
  ++version[gpu];
  ++version[other_gpu];
}

void RegionState::replace(int32_t slot, int32_t expert) {
  const int32_t gpu = gpu_of(slot);
  const int32_t old = expert_at[slot];
  take(gpu, slot);
  recount(old, -1);
  recount(expert, +1);
  put(gpu, slot, expert);
  ++version[gpu];
}

void RegionState::recount(int32_t expert, int32_t by) {
  count[expert] += by;
  const double after = weight[expert] / count[expert];
  for_each_holder(expert, [&](int32_t holder) {
    tokens[holder] += after - share[expert];
    ++version[holder];
  });
  share[expert] = after;
}

void RegionState::go_back(const RegionState& earlier) {
  count = earlier.count;
  share = earlier.share;
  tokens = earlier.tokens;
  expert_at = earlier.expert_at;
  holders_ = earlier.holders_;
  for (int32_t gpu = 0; gpu < gpus; ++gpu) version[gpu] += version[gpu] != earlier.version[gpu];
}

void RegionState::refresh_tokens() {
  auto expert = expert_at.begin();
  for (double& sum : tokens) {
    sum = 0;
    for (int32_t i = 0; i < slots_per_gpu; ++i) sum += share[*expert++];
  }
}

int32_t RegionState::slot_of(int32_t gpu, int32_t held_expert) const {
  int32_t slot = gpu * slots_per_gpu;
  while (expert_at[slot] != held_expert) ++slot;
  return slot;
}

int32_t RegionState::fullest() const {
  int32_t fullest = 0;
  double most = -1;
  for (int32_t gpu = 0; gpu < gpus; ++gpu) {
    if (time(gpu) <= most) continue;
    most = time(gpu);
    fullest = gpu;
  }
  return fullest;
}

}  // namespace eplbd
