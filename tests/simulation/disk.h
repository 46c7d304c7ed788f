// A disk in memory that fails where it is told to: the two generations of daemon/store/state_file,
// in its order of steps and with its bytes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "core/model/topology.h"
#include "daemon/store/state_store.h"
#include "tests/simulation/schedule.h"

namespace eplbd::simulation {

// The process ends here, as by kill -9. No std::exception: nobody catches it on the way.
struct Killed {};

class Disk : public StateStore {
 public:
  explicit Disk(const Topology& topology) : topology_(topology) {}

  void ask(const RebalancerState& state);  // to save it, whether or not that gets here
  void save(const RebalancerState& state) override;
  Recovered load() override;  // as a start does

  // Steps of a save: 0 before it, 1 half a generation is written, 2 it is written, 3 the newest is
  // the previous one, 4 it is the newest, but not synced.
  static constexpr uint64_t kSteps = 5;
  TimePoint asked;  // when the next save was asked for
  std::optional<uint64_t> fails_at;
  std::optional<uint64_t> kills_at;       // once
  std::optional<uint64_t> kills_then_at;  // once more, after that
  void damage_newest();

  // Of what would be found now; nothing: there is nothing.
  std::optional<PlacementId> newest() const { return newest_id_; }
  // When a placement was first to be saved, which is when it was decided.
  TimePoint first_saved(PlacementId id) const { return first_saved_.at(id); }
  // So with the word that others may be told of it.
  std::optional<TimePoint> first_told(PlacementId id) const {
    const auto found = first_told_.find(id);
    return found == first_told_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  void step(uint64_t number);
  std::optional<RebalancerState> read(std::optional<std::string>& generation);

  Topology topology_;
  std::map<PlacementId, TimePoint> first_saved_;
  std::map<PlacementId, TimePoint> first_told_;
  std::optional<std::string> newest_;
  std::optional<std::string> previous_;
  std::optional<std::string> writing_;
  std::optional<PlacementId> newest_id_;
  uint64_t saved_term_ = 0;  // of the process: both generations know it
};

}  // namespace eplbd::simulation
