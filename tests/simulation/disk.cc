// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/disk.h"

#include <stdexcept>
#include <utility>

#include "daemon/store/state_file.h"

namespace eplbd::simulation {
namespace {

constexpr char kDeployment[] = "simulated";

const PlacementUpdate& published_of(const RebalancerState& state) {
  return state.placements.published;
}
PlacementId highest_of(const RebalancerState& state) { return state.placements.highest; }

}  // namespace

void Disk::step(uint64_t number) {
  if (kills_at == number) {
    kills_at = std::exchange(kills_then_at, std::nullopt);
    throw Killed();
  }
  if (fails_at == number) throw std::runtime_error("step " + std::to_string(number) + " failed");
}

void Disk::ask(const RebalancerState& state) {
  first_saved_.emplace(published_of(state).id, asked);
  if (!state.placements.waits) first_told_.emplace(published_of(state).id, asked);
}

void Disk::save(const RebalancerState& state) {
  const std::string bytes = encode_state_file(state, kDeployment, topology_);
  step(0);
  writing_ = bytes.substr(0, bytes.size() / 2);
  step(1);
  writing_ = bytes;
  step(2);
  if (highest_of(state).term != saved_term_) {
    previous_ = std::exchange(writing_, bytes);
  } else if (newest_) {
    previous_ = std::exchange(newest_, std::nullopt);
  }
  step(3);
  newest_ = std::exchange(writing_, std::nullopt);
  newest_id_ = published_of(state).id;
  step(4);
  saved_term_ = highest_of(state).term;
}

std::optional<RebalancerState> Disk::read(std::optional<std::string>& generation) {
  if (!generation) return std::nullopt;
  StateFileContent content = decode_state_file(*generation, kDeployment, topology_);
  if (content.fault == StateFileFault::none) return std::move(content.state);
  generation.reset();  // set aside
  return std::nullopt;
}

Recovered Disk::load() {
  saved_term_ = 0;
  if (!newest_) newest_ = std::exchange(writing_, std::nullopt);
  auto state = read(newest_);
  if (!state) {
    state = read(previous_);
    if (state) state->placements.new_term = true;
  }
  newest_id_ = state ? std::optional(published_of(*state).id) : std::nullopt;
  // What was never kept may be decided anew, by the same name.
  const auto lost = [&](const auto& entry) { return entry.first > newest_id_; };
  std::erase_if(first_saved_, lost);
  std::erase_if(first_told_, lost);
  return {std::move(state), {}};
}

void Disk::damage_newest() {
  std::optional<std::string>& generation = newest_ ? newest_ : writing_;
  if (generation) generation->back() ^= 1;
}

}  // namespace eplbd::simulation
