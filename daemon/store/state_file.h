// What must outlive the process: one file in a folder that is this process's alone.
//
//   state           the newest generation
//   state.previous  the one before; where a generation begins a term, the same once more
//   state.new       the one that is being written
//   lock            held as long as the process lives
//
// Renames are all that it asks of the file system: hard links are not everywhere.
// What cannot be used is renamed and kept: state.damaged-..., state.other-shape-...
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/decide/rebalancer.h"
#include "core/model/topology.h"
#include "daemon/store/state_store.h"

namespace eplbd {

// ---- The bytes of a generation: header with length and checksum, then a msgpack map ----

// What was resized is in the state's own shape, and only means anything under the configuration
// that it was resized from; under any other one it is of another shape.
std::string encode_state_file(const RebalancerState& state, std::string_view deployment,
                              const Topology& configured);

enum class StateFileFault { none, damaged, newer_format, other_deployment, other_shape };
struct StateFileContent {
  StateFileFault fault = StateFileFault::damaged;
  std::string detail;     // of a fault, for people
  RebalancerState state;  // fault none
};
StateFileContent decode_state_file(std::string_view bytes, std::string_view deployment,
                                   const Topology& configured);

// ---- The folder ----

// Another process holds the folder.
class StateHeldError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// It holds the state of another deployment.
class StateForeignError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class StateFile : public StateStore {
 public:
  // Creates the folder (mode 0750) where it is missing, and locks it. Throws StateHeldError, or
  // std::runtime_error naming what cannot be used.
  StateFile(const std::string& directory, std::string deployment, const Topology& topology);
  ~StateFile() override;
  StateFile(const StateFile&) = delete;
  StateFile& operator=(const StateFile&) = delete;

  // The newest generation that is whole; an older one than the newest ever saved comes with
  // new_term set, as workers may know newer placements. Its highest term is that of any placement
  // that was saved, unless both generations were lost. Throws StateForeignError.
  Recovered load() override;

  // Durable when it returns: written beside, synced, renamed over, folder synced. Throws
  // std::runtime_error with the step and the reason; load() then finds the generation before, or
  // this one.
  void save(const RebalancerState& state) override;

  const std::string& directory() const { return directory_; }

 private:
  std::optional<RebalancerState> read_generation(const std::string& name, Recovered& recovered);
  void set_aside(const std::string& name, const StateFileContent& content, Recovered& recovered);

  std::string directory_;
  std::string deployment_;
  Topology topology_;  // its own: save() runs on another thread
  int lock_ = -1;
  uint64_t saved_term_ = 0;  // the highest that both generations know; 0: not yet sure
};

}  // namespace eplbd
