// What is wrong with a deployment and should be seen to.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/names.h"
#include "core/model/time.h"

namespace eplbd {

struct Situation;

// The label values of eplbd_problems{kind}.
enum class ProblemKind {
  state_not_saved,     // the disk fails: nothing new is published
  no_leader,           // none of the daemons that share a deployment is known to lead
  topology_mismatch,   // workers report another shape
  not_applied,         // failed, refused or not in time
  broken_map,          // workers report a map that breaks a rule
  empty_gpu,           // workers report a GPU without weights that no operator took out
  nameless_placement,  // workers run what nobody else knows by its name
  not_drained,         // workers do not say that a GPU of theirs may hold nothing
  no_counts,           // workers report their state, but nothing of load
  messages_rejected,   // what somebody sends is dropped
  worker_clock         // a worker's time runs far faster or slower than ours
};
constexpr auto names(ProblemKind) {
  return std::to_array<std::string_view>({"state_not_saved", "no_leader", "topology_mismatch",
                                          "not_applied", "broken_map", "empty_gpu",
                                          "nameless_placement", "not_drained", "no_counts",
                                          "messages_rejected", "worker_clock"});
}

struct Problem {
  ProblemKind kind;
  std::string text;  // a sentence that names who and what
};

// As far as reports tell.
std::vector<Problem> problems_of(const Situation& situation, TimePoint now);

}  // namespace eplbd
