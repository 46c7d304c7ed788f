// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/model/migration.h"

namespace eplbd::simulation {
namespace {

constexpr Duration kFirstPause = std::chrono::seconds(5);      // after an update that was forced
constexpr Duration kLongestSilence = std::chrono::seconds(3);  // between two decisions
constexpr Duration kLongestWithoutReport = std::chrono::seconds(8);
constexpr Duration kSlack = std::chrono::milliseconds(1);

std::string name_of(PlacementId id) { return fmt::format("({}, {})", id.term, id.version); }

bool is_forced(UpdateReason reason) {
  return reason == UpdateReason::gpu || reason == UpdateReason::repaired ||
         reason == UpdateReason::recovered;
}

}  // namespace

void Judge::fail(std::string rule, std::string detail) const {
  throw Broken{std::move(rule), std::move(detail), schedule_.seconds()};
}

void Judge::lost_its_state() {
  lost_ = true;
  named_ = {};
  lost_its_dates();
}

void Judge::lost_its_dates() {
  spent_.clear();
  dates_lost_at_ = schedule_.now();
  adopted_.reset();
  adopted_pause_ = Duration{0};
}

// By an operator, or by who takes over.
bool Judge::is_ordered(UpdateReason reason) {
  switch (reason) {
    case UpdateReason::requested:
    case UpdateReason::imported:
    case UpdateReason::rollback:
      return true;
    case UpdateReason::gpu:
      return std::exchange(gpus_ordered_, false);
    case UpdateReason::recovered:
      return takeovers_ > 0 && takeovers_-- > 0;
    default:
      return false;
  }
}

void Judge::held(const PlacementUpdate& update, const Deployment* deployment) {
  if (update.id == PlacementId{}) return;
  const bool adopted = update.base == update.id;
  PlacementRules rules;
  rules.gpus_down = update.gpus_down;
  rules.allow_duplicates = adopted;
  if (const auto violation = find_violation(scenario_.topology, update.placement, rules)) {
    fail("every placement is valid", name_of(update.id) + ": " + *violation);
  }
  if (!update.gpus_down.empty() && !may_empty_gpus_) {
    fail("no GPU is emptied of a group that cannot run so", name_of(update.id));
  }
  const auto [known, is_new] = maps_.emplace(update.id, update.placement);
  // What a name meant that the disk lost is what the group says, which may be a lie.
  if (lost_ && adopted) known->second = update.placement;
  if (known->second != update.placement) {
    fail("one name, one map", name_of(update.id) + " names another map than before");
  }
  if (!is_new) return;
  if (deployment != nullptr && update.id <= highest_named_ && !adopted) {
    fail("a new name is above all before",
         name_of(update.id) + " after " + name_of(highest_named_));
  }
  if (!adopted) return check_rails(update, deployment);
  adopted_held_.insert(update.id);
}

// One that reports ever higher names moves the others' weights seldom.
void Judge::check_adopted(PlacementId id) {
  const auto told = disk_.first_told(id);
  if (!told) fail("what is adopted is told in its turn", name_of(id));
  if (*told < dates_lost_at_) return;
  if (adopted_ && *told - *adopted_ < adopted_pause_ - kSlack) {
    fail("what is adopted pauses, each time twice as long",
         fmt::format("{} came {:.3f} s after the one before", name_of(id),
                     to_seconds(*told - *adopted_)));
  }
  adopted_ = told;
  adopted_pause_ = std::max(kFirstPause, 2 * adopted_pause_);
}

void Judge::named(PlacementId id, bool leads) {
  if (!leads) fail("who does not lead names nothing", name_of(id));
  if (id != PlacementId{} && (!disk_.newest() || *disk_.newest() < id)) {
    fail("nothing is named before it is saved", name_of(id) + " is not on disk");
  }
  if (id < named_) {
    fail("names never go back", name_of(id) + " after " + name_of(named_));
  }
  named_ = id;
  if (adopted_held_.erase(id) > 0) check_adopted(id);
  highest_named_ = std::max(highest_named_, id);
}

void Judge::check_rails(const PlacementUpdate& update, const Deployment* deployment) {
  const TimePoint decided = disk_.first_saved(update.id);
  std::erase_if(spent_, [&](const Spent& s) { return decided - s.at >= std::chrono::hours(1); });
  const bool ordered = is_ordered(update.reason);
  const bool forced = is_forced(update.reason) && !ordered;
  const auto earlier = std::ranges::count(spent_, true, &Spent::forced);
  if (forced && earlier > 0) {
    const auto last = std::ranges::find(spent_.rbegin(), spent_.rend(), true, &Spent::forced);
    const Duration first = std::max(kFirstPause, scenario_.options.trigger.cooldown);
    const Duration pause = first * (int64_t{1} << std::min<int64_t>(earlier - 1, 9));
    if (decided - last->at < pause - kSlack) {
      fail("what is forced pauses, each time twice as long",
           fmt::format("{} ({}) came {:.3f} s after the one before, not {:.3f} s",
                       name_of(update.id), to_string(update.reason), to_seconds(decided - last->at),
                       to_seconds(pause)));
    }
  }
  if (!ordered && (!forced || earlier > 0)) check_limits(update);
  if (!ordered && deployment && deployment->rebalancer().paused({schedule_.now(), 1})) {
    fail("nothing is decided while paused", name_of(update.id));
  }
  if (decided < dates_lost_at_) return;
  spent_.push_back({decided, forced, static_cast<int64_t>(update.moves.size())});
}

void Judge::check_limits(const PlacementUpdate& update) const {
  const LimitOptions& limits = scenario_.options.limits;
  const auto updates = static_cast<int64_t>(spent_.size());
  if (limits.updates_per_hour > 0 && updates >= limits.updates_per_hour) {
    fail("updates_per_hour", fmt::format("{} ({}) after {} within the hour", name_of(update.id),
                                         to_string(update.reason), updates));
  }
  std::vector<int64_t> incoming(scenario_.topology.gpus);
  for (const Move& move : update.moves) ++incoming[scenario_.topology.gpu_of(move.slot)];
  const auto moves = static_cast<int64_t>(update.moves.size());
  if (limits.max_moves > 0 && moves > limits.max_moves) {
    fail("max_moves", fmt::format("{}: {} moves", name_of(update.id), moves));
  }
  if (limits.max_moves_per_gpu > 0 && std::ranges::max(incoming) > limits.max_moves_per_gpu) {
    fail("max_moves_per_gpu",
         fmt::format("{}: {} moves to a GPU", name_of(update.id), std::ranges::max(incoming)));
  }
}

void Judge::check_window(const Deployment& deployment) const {
  const TimePoint now = schedule_.now();
  const Rebalancer& rebalancer = deployment.rebalancer();
  double tokens = 0;
  for (const double load : rebalancer.loads({now, 0})) {
    if (!std::isfinite(load) || load < 0) fail("windows are finite", fmt::format("{}", load));
    tokens += load;
  }
  if (tokens > counted_ * 1.001 + 1) {
    fail("a window holds no more than was counted", fmt::format("{} of {}", tokens, counted_));
  }
  const Snapshot shown = deployment.snapshot({now, 1});
  if (shown.imbalance_floor > shown.imbalance) {
    fail("what is in force is no better than the best",
         fmt::format("{} of {}", shown.imbalance, shown.imbalance_floor));
  }
  const auto sources = static_cast<int64_t>(rebalancer.sources().sources().size());
  if (sources > scenario_.options.limits.sources) {
    fail("memory is bounded", fmt::format("{} sources", sources));
  }
}

// Whatever the group does meanwhile.
void Judge::check_decides(const Deployment& deployment) const {
  const TimePoint now = schedule_.now();
  if (now - hindered_at_ < 2 * kLongestSilence) return;
  const auto& decisions = deployment.journal().decisions();
  if (decisions.empty() || now - decisions.front().latest.now.steady > kLongestSilence) {
    fail("it goes on deciding", "no decision for three seconds");
  }
}

void Judge::check_settled(Now now, const Deployment* serves, PlacementId running,
                          double tokens_per_second) const {
  if (serves == nullptr) fail("one of them leads again", "none does");
  const Rebalancer& rebalancer = serves->rebalancer();
  const auto& decisions = serves->journal().decisions();
  if (decisions.empty() || now.unix_seconds - decisions.front().ts > 2) {
    fail("it decides again", "no decision for two seconds");
  }
  const Verdict verdict = decisions.front().latest.verdict;
  const std::string detail =
      std::string(to_string(verdict)) + ": " + decisions.front().latest.detail;
  if (rebalancer.live_sources(now) != scenario_.sources) {
    fail("every source is heard again",
         fmt::format("{} of {} live", rebalancer.live_sources(now), scenario_.sources));
  }
  const auto reported = rebalancer.group().reported_at();
  if (scenario_.reports && (!reported || now.steady - *reported > kLongestWithoutReport)) {
    fail("reports of the group are heard again", detail);
  }
  switch (verdict) {
    case Verdict::observing:
    case Verdict::paused:
    case Verdict::no_counts:
    case Verdict::too_few_tokens:
    case Verdict::topology_mismatch:
    case Verdict::apply_failed:
    case Verdict::invalid_candidate:
    case Verdict::would_update:
      fail("it decides again", detail);
    default:
      break;
  }
  const double half_life = to_seconds(rebalancer.half_life());
  const double expected = tokens_per_second * half_life / std::log(2.0);
  if (std::abs(rebalancer.tokens(now) / expected - 1) > 0.1) {
    fail("the window is that of a slow reference",
         fmt::format("{} tokens, not {}", rebalancer.tokens(now), expected));
  }
  const SpentInHour spent =
      rebalancer.spent_in_hour({now.steady + std::chrono::hours(1), now.unix_seconds + 3600});
  if (spent.updates > 0) {
    fail("an hour gives the limits back", fmt::format("{} updates are spent", spent.updates));
  }
  const GroupState& group = rebalancer.group();
  if (!group.pending() && running != group.published().id && verdict != Verdict::rate_limited) {
    fail("the group comes to run what was published",
         fmt::format("{}, not {}; {}", name_of(running), name_of(group.published().id), detail));
  }
}

}  // namespace eplbd::simulation
