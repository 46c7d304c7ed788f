// What is seen of a deployment from outside: see daemon/deployment.h.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "core/balance/imbalance_floor.h"
#include "core/model/imbalance.h"
#include "daemon/deployment.h"

namespace eplbd {
namespace {

constexpr Duration kSampleInterval = std::chrono::seconds(1);
// Times what it took to measure the floor: half a percent of a core, whatever the shape.
constexpr int kFloorPause = 200;

constexpr int32_t kSourcesShown = 64;  // a series or four each

// Of a limit, where there is one.
std::optional<int64_t> left_of(int64_t limit, int64_t spent) {
  if (limit == 0) return std::nullopt;
  return std::max<int64_t>(0, limit - spent);
}

// Load of each GPU over all layers / the mean of those that hold something.
std::vector<double> gpu_load_ratio(const Topology& topology, std::span<const double> gpu_loads,
                                   size_t gpus_down) {
  std::vector<double> ratio(static_cast<size_t>(topology.gpus), 0.0);
  for (size_t i = 0; i < gpu_loads.size(); ++i) ratio[i % ratio.size()] += gpu_loads[i];
  const double mean = std::accumulate(ratio.begin(), ratio.end(), 0.0) /
                      static_cast<double>(ratio.size() - gpus_down);
  if (mean <= 0) return {};
  for (double& value : ratio) value /= mean;
  return ratio;
}

}  // namespace

double Deployment::measure_floor(Now now) const {
  return imbalance_floor(rebalancer_.options().balancer, rebalancer_.topology(),
                         rebalancer_.loads(now), rebalancer_.gpus_down());
}

void Deployment::sample(Now now) {
  if (now.steady - sampled_at_ < kSampleInterval) return;
  sampled_at_ = now.steady;
  if (now.steady >= floor_due_) {
    floor_ = measure_floor(now);
    floor_due_ = now.steady + kFloorPause * (std::chrono::steady_clock::now() - now.steady);
  }
  const Snapshot snap = snapshot(now);
  metrics_.refresh(snap);
  if (snap.imbalance > 0) {
    const double worst = snap.layer_imbalance[*worst_layer(snap.layer_imbalance)];
    journal_.sampled({now.unix_seconds, snap.imbalance, snap.imbalance_initial, worst,
                      snap.imbalance_measured, snap.imbalance_floor, snap.imbalance_would_be});
  }
}

Deployment::Settings Deployment::settings(Now now) const {
  return {rebalancer_.paused(now), rebalancer_.mode(), rebalancer_.gpus_down()};
}

// By whose order, report or deadline it ever was.
void Deployment::note_changes(Now now) {
  Settings next = settings(now);
  if (next == told_) return;
  const auto tell = [&](JournalEventKind kind, std::string text) {
    journal_.happened({now.unix_seconds, kind, std::move(text)});
  };
  using Kind = JournalEventKind;
  if (next.paused != told_.paused) {
    tell(next.paused ? Kind::pause : Kind::resume, next.paused ? "paused" : "resumed");
  }
  if (next.mode != told_.mode) tell(Kind::mode, fmt::format("mode {}", to_string(next.mode)));
  if (next.gpus_down != told_.gpus_down) {
    tell(Kind::gpu, next.gpus_down.empty()
                        ? "no GPU is down any more"
                        : fmt::format("GPUs down: {}", fmt::join(next.gpus_down, ", ")));
  }
  told_ = std::move(next);
}

// Nothing where what it was planned from runs no more.
double Deployment::imbalance_would_be(std::span<const double> loads) const {
  const bool may = would_be_ && rebalancer_.mode() == Mode::shadow &&
                   would_be_->base == rebalancer_.group().running();
  if (!may) return 0;
  return imbalance_of(rebalancer_.topology(), would_be_->placement, loads, would_be_->gpus_down)
      .whole_model;
}

std::vector<SourceSnapshot> Deployment::sources_seen(Now now) const {
  const SourceTable& table = rebalancer_.sources();
  std::vector<SourceSnapshot> seen;
  for (const auto& [name, source] : table.sources()) {
    if (!table.live(source, now.steady)) continue;
    const bool behind = source.running < rebalancer_.group().published().id;
    seen.push_back({name, source.messages, source.lost, behind,
                    now.unix_seconds - to_seconds(now.steady - source.counts.at())});
  }
  return seen;
}

Snapshot Deployment::snapshot(Now now) const {
  const Topology& topology = rebalancer_.topology();
  const GroupState& group = rebalancer_.group();
  Snapshot snap;
  snap.mode = rebalancer_.mode();
  snap.paused = rebalancer_.paused(now);
  snap.leader = leads();
  snap.workers = static_cast<size_t>(rebalancer_.live_sources(now));
  snap.workers_behind = static_cast<size_t>(rebalancer_.sources_behind(now));
  snap.last_counts_unix_seconds = newest_counts_unix_;

  const std::vector<double> loads = rebalancer_.loads(now);
  const std::vector<double> per_gpu = gpu_loads(topology, group.in_force(), loads);
  const Imbalance imbalance = imbalance_of(topology, per_gpu, rebalancer_.gpus_down());
  snap.imbalance = imbalance.whole_model;
  snap.layer_imbalance = imbalance.layers;
  snap.gpu_load_ratio = gpu_load_ratio(topology, per_gpu, rebalancer_.gpus_down().size());
  snap.imbalance_initial = imbalance_of(topology, group.initial(), loads).whole_model;
  snap.imbalance_measured = rebalancer_.measured_imbalance(now);
  // The floor is of a moment ago: what is in force now is no better than the best.
  snap.imbalance_floor = std::min(floor_, imbalance.whole_model);
  snap.imbalance_would_be = imbalance_would_be(loads);
  snap.imbalance_threshold = rebalancer_.options().trigger.imbalance;
  snap.gain_realised = rebalancer_.gain_realised();

  const LimitOptions& limits = rebalancer_.options().limits;
  const SpentInHour spent = rebalancer_.spent_in_hour(now);
  snap.updates_left = left_of(limits.updates_per_hour, spent.updates);
  snap.moves_left = left_of(limits.moves_per_hour, spent.moves);

  // By the end of a pause, too, where that is known.
  const double free =
      snap.paused ? std::max(next_update_, rebalancer_.paused_until()) : next_update_;
  const bool known = !snap.paused || rebalancer_.paused_until() > 0;
  if (known && free > now.unix_seconds) snap.next_update_unix_seconds = free;
  if (rebalancer_.live_sources(now) <= kSourcesShown) snap.sources = sources_seen(now);

  snap.problems = problems(now);

  snap.placement = group.published().id;
  snap.placement_unix_seconds = group.published().unix_seconds;
  snap.gpus_down = static_cast<int>(rebalancer_.gpus_down().size());
  snap.window_half_life_seconds = to_seconds(rebalancer_.half_life());
  return snap;
}

std::vector<Problem> Deployment::problems(Now now) const {
  std::vector<Problem> problems = rebalancer_.problems(now);
  if (!save_failure_.empty()) {
    problems.insert(problems.begin(),
                    {ProblemKind::state_not_saved, "the state cannot be saved: " + save_failure_});
  }
  if (standing_by_ && leader_.empty()) {
    problems.push_back({ProblemKind::no_leader, "no daemon is known to lead, so none publishes" +
                                                    (no_leader_.empty() ? "" : ": " + no_leader_)});
  }
  if (const double seconds = rebalancer_.seconds_to_adopted(now).value_or(0); seconds > 0) {
    problems.push_back({ProblemKind::nameless_placement,
                        fmt::format("workers name ever other placements, now {}: others are told "
                                    "of it in {:.0f} s",
                                    to_text(rebalancer_.group().published().id), seconds)});
  }
  std::ranges::move(rejections_.problems(rebalancer_.options().workers.timeout, now),
                    std::back_inserter(problems));
  return problems;
}

}  // namespace eplbd
