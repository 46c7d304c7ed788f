// SPDX-License-Identifier: Apache-2.0
#include "core/workers/group_state.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace eplbd {
namespace {

constexpr size_t kHistory = 8;
constexpr double kDaySeconds = 86400;
// Far above any real version, far below where adding one wraps.
constexpr uint64_t kHighestVersion = uint64_t{1} << 62;

std::string name(PlacementId id) {
  std::string text = "(";
  return text.append(std::to_string(id.term)).append(", ").append(std::to_string(id.version)) + ")";
}

bool lacks_an_expert(const Topology& topology, const Placement& placement) {
  std::vector<int32_t> replicas(topology.logical_experts);
  for (int32_t layer = 0; layer < topology.layers; ++layer) {
    count_replicas(placement.layer(layer), replicas);
    if (std::find(replicas.begin(), replicas.end(), 0) != replicas.end()) return true;
  }
  return false;
}

bool same_map(const PackedArray<int32_t>& reported, const Placement& placement) {
  const auto& map = placement.map();
  if (reported.size() != map.size()) return false;
  for (size_t i = 0; i < map.size(); ++i) {
    if (reported[i] != map[i]) return false;
  }
  return true;
}

}  // namespace

GroupState::GroupState(const Topology& topology, Placement initial, PlacementUpdate published,
                       PlacementId highest, bool new_term, std::deque<PlacementUpdate> history)
    : topology_(topology),
      initial_(std::move(initial)),
      published_(std::move(published)),
      highest_(highest),
      new_term_(new_term),
      history_(std::move(history)),
      running_(published_.id),
      in_force_(published_.placement),
      incomplete_(lacks_an_expert(topology_, published_.placement)) {}

PlacementId GroupState::next_id(double unix_seconds) const {
  PlacementId id{published_.id.term, std::max(highest_.version, published_.id.version) + 1};
  if (new_term_) {
    id.term = std::max(static_cast<uint64_t>(std::max(unix_seconds, 1.0)), highest_.term + 1);
  }
  return id;
}

const PlacementUpdate* GroupState::find(uint64_t version) const {
  if (published_.id.version == version) return &published_;
  const auto found = std::find_if(history_.begin(), history_.end(),
                                  [&](const auto& update) { return update.id.version == version; });
  return found == history_.end() ? nullptr : &*found;
}

void GroupState::remember(PlacementUpdate update) {
  update.moves.clear();  // they are of use while it is new
  history_.push_front(std::move(update));
  if (history_.size() > kHistory) history_.pop_back();
}

void GroupState::publish(const PlacementUpdate& update, TimePoint now) {
  remember(std::exchange(published_, update));
  highest_ = {std::max(highest_.term, update.id.term),
              std::max(highest_.version, update.id.version)};
  new_term_ = false;
  pending_ = true;
  failed_ = false;
  unknown_ = false;
  incomplete_ = false;
  pending_since_ = sent_at_ = now;
}

void GroupState::published_again(TimePoint now) {
  sent_at_ = pending_since_ = now;
  failed_ = false;
}

bool GroupState::due_again(Duration apply_timeout, TimePoint now) const {
  return pending_ && failed_ && now - sent_at_ >= apply_timeout;
}

ObserveResult GroupState::advance(Duration apply_timeout, TimePoint now) {
  ObserveResult result;
  if (!pending_ || failed_ || now - pending_since_ < apply_timeout) return result;
  failed_ = result.failed = true;
  failure_ = result.detail = "placement " + name(published_.id) + " was not applied within " +
                             std::to_string(std::lround(to_seconds(apply_timeout))) + " s";
  return result;
}

std::optional<RejectReason> GroupState::check(const StateReport& report, Now now) const {
  if (static_cast<double>(report.running.term) > now.unix_seconds + kDaySeconds) {
    return RejectReason::bad_timestamp;
  }
  if (report.running.version > kHighestVersion) return RejectReason::bad_value;
  const auto cells = static_cast<double>(report.layers) * static_cast<double>(report.slots);
  if (report.layers < 1 || report.slots < 1 ||
      static_cast<double>(report.physical_to_logical.size()) != cells) {
    return RejectReason::wrong_shape;
  }
  for (size_t i = 0; i < report.physical_to_logical.size(); ++i) {
    const int32_t expert = report.physical_to_logical[i];
    if (expert < kNoExpert || expert >= report.logical_experts) return RejectReason::bad_value;
  }
  return std::nullopt;
}

ObserveResult GroupState::report(const StateReport& report, Now now) {
  ObserveResult result;
  result.rejected = check(report, now);
  if (result.rejected) return result;
  reported_at_ = now.steady;
  topology_mismatch_ = report.layers != topology_.layers || report.slots != topology_.slots ||
                       report.logical_experts != topology_.logical_experts ||
                       report.gpus != topology_.gpus;
  if (topology_mismatch_) {
    mismatch_ = std::string(report.source) + " runs " + std::to_string(report.layers) +
                " layers, " + std::to_string(report.logical_experts) + " logical experts, " +
                std::to_string(report.slots) + " slots, " + std::to_string(report.gpus) +
                " GPUs, not the topology that is configured";
    result.topology_mismatch = true;
    result.detail = mismatch_;
    return result;
  }
  unknown_ = false;

  const bool expected =
      report.running == published_.id && same_map(report.physical_to_logical, published_.placement);
  if (expected) {
    if (pending_) {
      result.applied = true;
      result.apply_seconds = std::isfinite(report.apply_seconds) && report.apply_seconds >= 0
                                 ? report.apply_seconds
                                 : to_seconds(now.steady - pending_since_);
      set_applied(now.steady);
    }
    return result;
  }
  if (report.running == running_ && same_map(report.physical_to_logical, in_force_) && pending_) {
    note_status(report, now.steady, result);
    return result;
  }
  std::vector<int32_t> map(report.physical_to_logical.size());
  report.physical_to_logical.copy_to(map);
  Placement placement(topology_, std::move(map));
  if (report.running < published_.id) {
    fall_behind(report.running, std::move(placement), now.steady, result);
    note_status(report, now.steady, result);
  } else {
    adopt(report.running, std::move(placement), now, result);
  }
  return result;
}

void GroupState::set_applied(TimePoint now) {
  running_ = published_.id;
  in_force_ = published_.placement;
  pending_ = failed_ = false;
  applied_at_ = now;
}

// A placement that is not below ours, and not ours: it is in force from now on, and the next one is
// planned from it.
void GroupState::adopt(PlacementId id, Placement placement, Now now, ObserveResult& result) {
  const bool above = id > published_.id;
  result.adopted = true;
  result.detail = "the group runs " + name(id) +
                  (above ? ", which is above what we know" : ", but with another map") +
                  ": adopted";
  if (id == PlacementId{}) initial_ = placement;
  if (above) {
    if (published_.id != PlacementId{}) remember(published_);
    new_term_ = true;
    highest_ = {std::max(highest_.term, id.term), std::max(highest_.version, id.version)};
  }
  const UpdateReason reason = id == PlacementId{} ? UpdateReason::initial : UpdateReason::recovered;
  published_ = {};
  published_.id = published_.base = id;
  published_.unix_seconds = now.unix_seconds;
  published_.reason = reason;
  published_.placement = placement;
  incomplete_ = lacks_an_expert(topology_, placement);
  running_ = id;
  in_force_ = std::move(placement);
  pending_ = failed_ = false;
}

// A placement below the published one: the group has yet to take that, perhaps once more.
void GroupState::fall_behind(PlacementId id, Placement placement, TimePoint now,
                             ObserveResult& result) {
  if (id == PlacementId{}) initial_ = placement;
  if (!pending_) {
    pending_ = true;
    failed_ = false;
    pending_since_ = sent_at_ = now;
  }
  result.adopted = true;
  result.detail = "the group runs " + name(id) + ", not " + name(published_.id);
  running_ = id;
  in_force_ = std::move(placement);
}

void GroupState::note_status(const StateReport& report, TimePoint now, ObserveResult& result) {
  switch (report.status) {
    case WorkerStatus::applying:
      if (failed_) {
        failed_ = false;
        pending_since_ = now;
      }
      return;
    case WorkerStatus::failed:
    case WorkerStatus::refused:
      if (failed_) return;
      failed_ = result.failed = true;
      failure_ = result.detail =
          std::string(report.source) + " says that placement " + name(published_.id) + " " +
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
  topology_mismatch_ = false;  // counts have the topology's shape
  if (running == published_.id) {
    unknown_ = false;
    if (!pending_) return result;
    result.applied = true;
    result.apply_seconds = to_seconds(now.steady - pending_since_);
    set_applied(now.steady);
    return result;
  }
  if (running == running_ || static_cast<double>(running.term) > now.unix_seconds + kDaySeconds ||
      running.version > kHighestVersion) {
    return result;
  }
  if (running > published_.id) {
    if (unknown_) return result;
    unknown_ = new_term_ = true;
    highest_ = {std::max(highest_.term, running.term), std::max(highest_.version, running.version)};
    result.detail = "all sources run " + name(running) + ", whose map nobody reports";
    return result;
  }
  const PlacementUpdate* const known = find(running.version);
  if (running == PlacementId{}) {
    fall_behind(running, initial_, now.steady, result);
  } else if (known && known->id == running) {
    fall_behind(running, known->placement, now.steady, result);
  }
  return result;
}

}  // namespace eplbd
