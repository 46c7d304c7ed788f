// SPDX-License-Identifier: Apache-2.0
#include "core/workers/group_state.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace eplbd {
namespace {

constexpr double kDaySeconds = 86400;
// Far above any real version, far below where adding one wraps.
constexpr uint64_t kHighestVersion = uint64_t{1} << 62;
// So many versions of ours at the most are not known any more where the newest state was lost.
constexpr uint64_t kLostVersions = uint64_t{1} << 20;

// Nothing when it was not said, or is no time that applying can take.
std::optional<double> said_apply_seconds(const StateReport& report) {
  constexpr double kLongest = 30 * kDaySeconds;
  if (!(report.apply_seconds >= 0 && report.apply_seconds <= kLongest)) return std::nullopt;
  return report.apply_seconds;
}

// Of a placement that nobody reported just now.
std::optional<std::string> broken_rule(const Topology& topology, PlacementId id,
                                       const Placement& placement,
                                       std::span<const int32_t> gpus_down) {
  PlacementRules rules;
  rules.gpus_down = gpus_down;
  rules.allow_duplicates = true;
  auto broken = find_violation(topology, placement, rules);
  if (broken) broken = "placement " + to_text(id) + " breaks a rule: " + *broken;
  return broken;
}

}  // namespace

GroupState::GroupState(const Topology& topology, PlacementLog& log, std::vector<int32_t> empty_gpus)
    : topology_(topology), log_(log) {
  take_up(std::move(empty_gpus));
}

void GroupState::take_up(std::vector<int32_t> empty_gpus) {
  running_ = log_.published.id;
  in_force_ = log_.published.placement;
  broken_ = broken_rule(topology_, running_, in_force_, log_.published.gpus_down);
  may_empty_gpus_ |= !log_.published.gpus_down.empty() || !empty_gpus.empty();
  empty_gpus_ = std::move(empty_gpus);
  pending_ = failed_ = overdue_ = unknown_ = renamed_ = false;
}

void GroupState::publish(const PlacementUpdate& update, TimePoint now) {
  log_.publish(update);
  unknown_ = renamed_ = false;
  set_pending(now);
}

void GroupState::fill_again(int32_t gpu) { std::erase(empty_gpus_, gpu); }

void GroupState::set_pending(TimePoint now) {
  base_ = in_force_;
  pending_ = true;
  failed_ = overdue_ = false;
  pending_since_ = sent_at_ = now;
}

void GroupState::published_again(TimePoint now) {
  sent_at_ = now;
  failed_ = false;
}

bool GroupState::due_again(Duration apply_timeout, TimePoint now) const {
  return pending_ && (failed_ || overdue_) && now - sent_at_ >= apply_timeout;
}

ObserveResult GroupState::advance(Duration apply_timeout, TimePoint now) {
  ObserveResult result;
  if (!pending_ || overdue_ || now - pending_since_ < apply_timeout) return result;
  overdue_ = true;
  if (failed_) return result;  // told already
  failed_ = result.failed = true;
  failure_ = result.detail = "placement " + to_text(log_.published.id) +
                             " was not applied within " +
                             std::to_string(std::lround(to_seconds(apply_timeout))) + " s";
  return result;
}

// Our own names are good, whatever became of the clock or of the newest state since.
bool GroupState::is_real_version(uint64_t version) const {
  return version <= std::max(kHighestVersion, log_.highest.version + kLostVersions);
}

bool GroupState::may_name(PlacementId id, Now now) const {
  return id.term <= log_.highest.term ||
         static_cast<double>(id.term) <= now.unix_seconds + kDaySeconds;
}

std::optional<RejectReason> GroupState::check(const StateReport& report, Now now) const {
  if (!may_name(report.running, now)) return RejectReason::bad_timestamp;
  if (!is_real_version(report.running.version)) return RejectReason::bad_value;
  const auto cells = static_cast<double>(report.layers) * static_cast<double>(report.slots);
  if (report.layers < 1 || report.slots < 1 ||
      static_cast<double>(report.physical_to_logical.size()) != cells) {
    return RejectReason::wrong_shape;
  }
  return std::nullopt;
}

ObserveResult GroupState::report(const StateReport& report, Now now) {
  ObserveResult result;
  result.rejected = check(report, now);
  if (result.rejected) return result;
  reported_at_ = now.steady;
  note_shape(report);
  if (topology_mismatch()) {
    result.topology_mismatch = true;
    result.detail = mismatch();
    return result;
  }
  unknown_ = false;
  ReportedMap map = read_reported_map(topology_, report.physical_to_logical);
  may_empty_gpus_ = report.inactive_gpus || !map.empty_gpus.empty();
  if (progressed(report, map.placement, now.steady)) return result;
  judge(report, map);

  if (report.running == log_.published.id && map.placement == log_.published.placement) {
    renamed_ = false;
    if (pending_) {
      result.applied = true;
      result.apply_seconds =
          said_apply_seconds(report).value_or(to_seconds(now.steady - pending_since_));
      set_applied(now.steady);
    }
  } else if (pending_ && report.running == running_ && map.placement == in_force_) {
    note_status(report, result);
  } else if (report.running < log_.published.id) {
    // At each report it may have another row of an update that was superseded meanwhile.
    const bool goes_on =
        pending_ && report.running == running_ && report.status == WorkerStatus::applying;
    fall_behind(report.running, std::move(map.placement), now.steady, result);
    if (goes_on) result.detail.clear();
    note_status(report, result);
  } else if (report.running != running_ || map.placement != in_force_) {
    adopt(report.running, std::move(map.placement), now, result);
  }
  return result;
}

void GroupState::note_shape(const StateReport& report) {
  shape_ = {std::string(report.source), report.layers, report.logical_experts, report.slots,
            report.gpus};
  if (carried() == nullptr) return;
  const Shape shape{static_cast<int32_t>(report.slots), static_cast<int32_t>(report.gpus)};
  ReportedMap map = read_reported_map(resized(topology_, shape), report.physical_to_logical);
  carried_ = {shape, report.running, std::move(map.placement), std::move(map.empty_gpus)};
}

bool GroupState::topology_mismatch() const {
  return shape_ &&
         (shape_->layers != topology_.layers || shape_->slots != topology_.slots ||
          shape_->logical_experts != topology_.logical_experts || shape_->gpus != topology_.gpus);
}

const CarriedMap* GroupState::carried() const {
  const bool same_model = topology_mismatch() && shape_->layers == topology_.layers &&
                          shape_->logical_experts == topology_.logical_experts;
  const bool even = same_model && shape_->gpus > 0 && shape_->slots % shape_->gpus == 0;
  return even ? &carried_ : nullptr;
}

std::string GroupState::mismatch() const {
  const auto text = [](int64_t layers, int64_t experts, int64_t slots, int64_t gpus) {
    return std::to_string(layers) + " layers, " + std::to_string(experts) + " logical experts, " +
           std::to_string(slots) + " slots, " + std::to_string(gpus) + " GPUs";
  };
  if (!shape_) return "";
  return shape_->source + " runs " +
         text(shape_->layers, shape_->logical_experts, shape_->slots, shape_->gpus) + ", not " +
         text(topology_.layers, topology_.logical_experts, topology_.slots, topology_.gpus) +
         (carried() == nullptr
              ? ""
              : "; eplbctl resize --gpus " + std::to_string(shape_->gpus) + " --slots " +
                    std::to_string(shape_->slots) + " goes on with that");
}

// What is wrong with the map, and which GPUs the group emptied where the map of that name had
// experts. A GPU that is empty because we said so is no news.
void GroupState::judge(const StateReport& report, const ReportedMap& map) {
  broken_ = map.broken;
  if (broken_) {
    broken_ = std::string(report.source) + " reports " + to_text(report.running) +
              " with a map that breaks a rule: " + *map.broken;
  }
  const Placement* const known = log_.map_of(report.running);
  std::vector<int32_t> empty;
  for (const int32_t gpu : map.empty_gpus) {
    const bool noted = std::ranges::binary_search(empty_gpus_, gpu);
    if (noted || known == nullptr || !is_empty(topology_, *known, gpu)) empty.push_back(gpu);
  }
  empty_gpus_ = std::move(empty);
}

// A map between the base and the published one is what runs now, and no other placement.
bool GroupState::progressed(const StateReport& report, Placement& map, TimePoint now) {
  const bool new_name = report.running == log_.published.id;
  if (report.status != WorkerStatus::applying || report.running > log_.published.id) return false;
  if (new_name && (!pending_ || map == log_.published.placement)) return false;
  const bool planned_from = pending_ && (new_name || report.running == running_);
  const Placement* const base = planned_from ? &base_ : log_.map_of(report.running);
  if (base == nullptr || !lies_between(map, *base, log_.published.placement)) return false;
  if (!pending_) {
    in_force_ = *base;
    running_ = report.running;
    set_pending(now);
  }
  failed_ = false;
  in_force_ = std::move(map);
  return true;
}

void GroupState::set_applied(TimePoint now) {
  running_ = log_.published.id;
  in_force_ = log_.published.placement;
  pending_ = failed_ = overdue_ = renamed_ = false;
  applied_at_ = now;
}

// A placement that is not below ours, and not ours: it is in force from now on, and the next one is
// planned from it. What went out under a name of ours stays the placement of that name.
void GroupState::adopt(PlacementId id, Placement placement, Now now, ObserveResult& result) {
  const bool above = id > log_.published.id;
  result.adopted = true;
  result.detail = "the group runs " + to_text(id) +
                  (above ? ", which is above what we know" : ", but with another map") +
                  ": adopted";
  renamed_ = !above && id != PlacementId{};
  if (!renamed_) log_.adopt(id, placement, now.unix_seconds, empty_gpus_);
  running_ = id;
  in_force_ = std::move(placement);
  pending_ = failed_ = overdue_ = false;
}

// A placement below the published one: the group has yet to take that, perhaps once more.
void GroupState::fall_behind(PlacementId id, Placement placement, TimePoint now,
                             ObserveResult& result) {
  if (id == PlacementId{}) log_.initial = placement;
  result.adopted = true;
  result.detail = "the group runs " + to_text(id) + ", not " + to_text(log_.published.id);
  running_ = id;
  in_force_ = std::move(placement);
  renamed_ = false;
  if (pending_) {
    base_ = in_force_;
  } else {
    set_pending(now);
  }
}

void GroupState::note_status(const StateReport& report, ObserveResult& result) {
  switch (report.status) {
    case WorkerStatus::applying:
      failed_ = false;
      return;
    case WorkerStatus::failed:
    case WorkerStatus::refused:
      if (failed_) return;
      failed_ = result.failed = true;
      failure_ = result.detail =
          std::string(report.source) + " says that placement " + to_text(log_.published.id) + " " +
          (report.status == WorkerStatus::failed ? "failed" : "was refused") +
          (report.error.empty() ? "" : ": " + std::string(report.error));
      return;
    case WorkerStatus::idle:
    case WorkerStatus::applied:
      return;
  }
}

ObserveResult GroupState::counts_name(PlacementId running, Now now) {
  ObserveResult result;
  shape_.reset();  // counts have the topology's
  if (running == log_.published.id) {
    unknown_ = false;
    if (!pending_) return result;
    result.applied = true;
    result.apply_seconds = to_seconds(now.steady - pending_since_);
    set_applied(now.steady);
    broken_ = broken_rule(topology_, running_, in_force_, log_.published.gpus_down);
    return result;
  }
  if (running == running_ || !may_name(running, now) || !is_real_version(running.version)) {
    return result;
  }
  if (running > log_.published.id) {
    if (unknown_) return result;
    unknown_ = true;
    log_.heard(running);
    result.detail = "all sources run " + to_text(running) + ", whose map nobody reports";
    return result;
  }
  if (const Placement* const known = log_.map_of(running)) {
    fall_behind(running, *known, now.steady, result);
    broken_.reset();
  }
  return result;
}

}  // namespace eplbd
