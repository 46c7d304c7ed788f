// Who sends: epochs, sequences, baselines of running counters, and which sources are live. Turns a
// counts report into tokens that may be added to a window, or says why not.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/load/arrivals.h"
#include "core/load/decayed_sum.h"
#include "core/load/jump_detector.h"
#include "core/model/time.h"
#include "core/model/topology.h"
#include "core/model/vector_kernel.h"
#include "core/workers/followed.h"
#include "core/workers/stream.h"
#include "core/workers/worker_report.h"

namespace eplbd {

// A source's counts over a longer time are a baseline, not load.
inline constexpr Duration kLongestInterval = std::chrono::minutes(30);

// What became of a counts report.
struct IngestResult {
  std::optional<RejectReason> rejected;  // dropped whole
  bool duplicate = false;                // dropped, harmless
  bool restarted = false;                // a larger epoch
  bool baseline = false;                 // accepted, but it counts from here on only
  bool reset = false;                    // a baseline, as its running counter started over
  bool inconsistent = false;             // accepted, but layers disagree about the tokens
  uint64_t lost = 0;                     // messages missing before this one
  uint64_t tokens = 0;                   // that count
  bool apart = false;                    // too many in a cell for arrivals().sums()
  // What counts, until the next report is admitted; empty: nothing.
  std::span<const uint32_t> counts;      // [layers, logical_experts]
  std::span<const uint32_t> gpu_tokens;  // [layers, gpus], or empty
  Duration covered{};                    // the time that they are spread over
};

struct SourceRules {
  std::string engine;  // the one followed; empty: the first heard
  Duration timeout{};  // silent longer: no longer live
  int64_t limit = 0;   // of sources; 0: none
};

using RunningCounter = AlignedVector<uint32_t>;  // as a report had it

struct Source {
  Stream counts;
  Stream state;
  PlacementId running;  // as its counts name it
  uint64_t messages = 0;
  uint64_t lost = 0;
  bool from_start = false;  // its epoch was heard from sequence 0
  RunningCounter counter;   // empty: sends deltas
  RunningCounter gpu_counter;
  DecayedSum steps;
  DecayedSum seconds;   // that its steps were made in
  Duration interval{};  // that its newest counts cover
  UsualSurprise surprise;
};

class SourceTable {
 public:
  SourceTable(const Topology& topology, SourceRules rules, Duration half_life);

  IngestResult admit(const CountsReport& report, TimePoint now);

  // What admitted reports bring; the newest one's too.
  Arrivals& arrivals() { return arrivals_; }
  // The same of GPUs [layers, gpus]. Whether the newest one's are kept is for who asked to say.
  Arrivals& gpu_arrivals() { return gpu_arrivals_; }
  const Arrivals& gpu_arrivals() const { return gpu_arrivals_; }

  // The sender's side of a state report; its content is the rebalancer's.
  IngestResult admit(const StateReport& report, TimePoint now);

  // Gives back what sources hold that were silent for so long that they start anew. Call it at any
  // pace.
  void forget_silent(TimePoint now);

  void set_rules(SourceRules rules, Duration half_life);
  // The group has so many GPUs from here on; what is counted by expert goes on.
  void resize(int32_t gpus);

  bool live(const Source& source, TimePoint now) const;  // its counts are
  bool any_live(TimePoint now) const;
  // What every live source says it runs; nothing when they differ or there is none.
  std::optional<PlacementId> agreed_placement(TimePoint now) const;
  // Tokens of a layer per forward pass of the group per GPU, on the window.
  double tokens_per_gpu_step(TimePoint now) const;
  // Live sources that sent no counts since then and are still expected to: not silent for longer
  // than they usually are.
  std::vector<std::string_view> awaited(TimePoint since, TimePoint now) const;
  // How surprising the counts of one are. Requires: it is known.
  UsualSurprise& surprise_of(std::string_view source) {
    return sources_.find(source)->second.surprise;
  }

  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  using Map = std::unordered_map<std::string, Source, Hash, std::equal_to<>>;
  const Map& sources() const { return sources_; }

 private:
  // What became of an array of a report.
  enum class Taken { counts, baseline, reset };

  Source* find_or_add(std::string_view name, TimePoint now);
  std::optional<RejectReason> check(const CountsReport& report, TimePoint now) const;
  static Taken take(const PackedArray<uint32_t>& values, bool cumulative, bool first, bool whole,
                    RunningCounter& counter, Arrivals& arrivals);
  void add_steps(uint64_t steps, Duration covered, TimePoint now, Source& source) const;
  void sum_layers(IngestResult& result) const;

  const int32_t layers_;
  const size_t cells_;  // layers * logical_experts
  int32_t gpus_;
  size_t gpu_cells_;  // layers * gpus
  SourceRules rules_;
  Duration half_life_;
  Map sources_;
  Followed followed_;
  Arrivals arrivals_;
  Arrivals gpu_arrivals_;
  DecayedSum tokens_;
  TimePoint forgot_at_{};
};

}  // namespace eplbd
