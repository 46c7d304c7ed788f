// What a seed stands for: a deployment, and what befalls it when.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/decide/rebalancer.h"
#include "core/model/names.h"
#include "core/model/topology.h"

namespace eplbd::simulation {

enum class Fault {
  crash,           // the daemon is killed, and starts again after `length`
  crash_in_save,   // so at a step of the next save, and perhaps of the one after that
  crash_clock,     // so with its wall clock set by `amount` seconds meanwhile
  damage,          // so, at once or after the next save, with its newest generation damaged
  freeze,          // a daemon does nothing for `length`
  cut_off,         // for `length` a daemon does not reach the store
  failing_disk,    // saves fail at one step for `length`; then the load moves
  slow_disk,       // saves take `amount` seconds for `length`
  clock,           // the daemon's wall clock jumps by `amount` seconds
  worker_clock,    // so does that of source `who`
  lossy,           // for `length` messages are lost with probability `amount`
  late,            // for `length` messages come up to `amount` seconds late, and out of order
  repeating,       // for `length` messages come twice with probability `amount`
  load,            // the load moves on by `number` experts
  pause,           // an operator pauses for `amount` seconds
  drain,           // an operator drains GPU `who`, and restores it after `length`
  rebalance,       // an operator asks for an update
  rollback,        // an operator goes back, and resumes after `length`
  step_down,       // an operator tells the daemon that leads to leave that to another
  worker_restart,  // source `who` begins a new epoch
  group_restart,   // all do, with the initial map
  counter_reset,   // counters of source `who` start over in the same epoch
  odd_number,      // one counts message of source `who` holds the edge `number` in field `amount`
  odd_id,          // one state report is of version 2^62
  odd_term,       // for `length` state reports, or two that differ, of terms `amount` seconds ahead
  broken,         // for `length` the group reports each placement with an expert missing
  flapping,       // for `length` two reporters disagree about the map, many times a second
  empty_gpu,      // for `length` the group reports GPU `who` empty
  other_shape,    // for `length` the group reports another shape
  slow_apply,     // for `length` applying takes `amount` seconds
  failing_apply,  // for `length` the group fails to apply
  silent_reporter,  // for `length` nobody reports state
  strangers         // `number` sources that send once and are gone
};
constexpr auto names(Fault) {
  return std::to_array<std::string_view>(
      {"crash",         "crash_in_save", "crash_clock",   "damage",
       "freeze",        "cut_off",       "failing_disk",  "slow_disk",
       "clock",         "worker_clock",  "lossy",         "late",
       "repeating",     "load",          "pause",         "drain",
       "rebalance",     "rollback",      "step_down",     "worker_restart",
       "group_restart", "counter_reset", "odd_number",    "odd_id",
       "odd_term",      "broken",        "flapping",      "empty_gpu",
       "other_shape",   "slow_apply",    "failing_apply", "silent_reporter",
       "strangers"});
}

struct Event {
  double at = 0;  // seconds
  Fault fault = Fault::load;
  int32_t who = 0;
  uint64_t number = 0;
  double amount = 0;
  double length = 0;  // seconds
};

struct Scenario {
  uint64_t seed = 0;
  Topology topology;
  RebalancerOptions options;
  int32_t daemons = 1;  // two share what they save, and one of them leads
  int32_t sources = 1;
  bool reports = true;        // the group reports state
  bool inactive_gpus = true;  // and that it can run with a GPU that holds nothing
  std::vector<Event> events;
  double settled = 0;  // seconds, after which nothing befalls it
};

// The same for the same seed, anywhere and always.
Scenario scenario_of(uint64_t seed);

std::string to_text(const Event& event);

}  // namespace eplbd::simulation
