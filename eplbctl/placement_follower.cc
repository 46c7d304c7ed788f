// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/placement_follower.h"

#include <algorithm>
#include <utility>

#include "core/model/migration.h"

namespace eplbd {

PlacementFollower::PlacementFollower(const Topology& topology, Duration apply_time)
    : topology_(topology), apply_time_(apply_time), serving_(Placement::initial(topology)) {}

void PlacementFollower::on_placement(PlacementUpdate update, TimePoint now) {
  PlacementId held = running_;
  if (applying_) held = std::max(held, applying_->id);
  if (waiting_) held = std::max(held, waiting_->id);
  if (update.id <= held) return;
  waiting_ = std::move(update);
  if (!applying_) start(now);
}

bool PlacementFollower::on_heartbeat(const Heartbeat& heartbeat) {
  if (heartbeat.id != running_) report_due_ = true;
  return heartbeat.id > std::max({running_, applying_ ? applying_->id : PlacementId{},
                                  waiting_ ? waiting_->id : PlacementId{}});
}

void PlacementFollower::start(TimePoint now) {
  applying_ = std::move(waiting_);
  waiting_.reset();
  applied_at_ = now + apply_time_;
  status_ = WorkerStatus::applying;
  report_due_ = true;
}

void PlacementFollower::advance(TimePoint now) {
  if (!applying_ || now < *applied_at_) return;
  const int64_t moved = count_moves(topology_, serving_, applying_->placement).total;
  moves_ += moved;
  updates_ += moved > 0 ? 1 : 0;
  serving_ = std::move(applying_->placement);
  running_ = applying_->id;
  applying_.reset();
  applied_at_.reset();
  status_ = WorkerStatus::applied;
  report_due_ = true;
  if (waiting_) start(now);
}

bool PlacementFollower::take_report_due() { return std::exchange(report_due_, false); }

}  // namespace eplbd
