// Which of several daemons serves a deployment: see daemon/deployment.h.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <utility>

#include "daemon/clock.h"
#include "daemon/deployment.h"
#include "daemon/net/placement_sink.h"

namespace eplbd {

bool Deployment::leads() const { return !standing_by_ && read_clock().steady < leads_until_; }

void Deployment::stand_by(const std::string& why) {
  standing_by_ = true;
  publisher_.hold("");
  save_failure_.clear();
  log(LogLevel::info, "stands by: " + why);
  if (stands_by_hook_) stands_by_hook_();
}

void Deployment::follow(const std::string& leader, const std::string& trouble) {
  if (leader != leader_ && !leader.empty()) log(LogLevel::info, leader + " leads");
  leader_ = leader;
  no_leader_ = trouble;
}

// The state that the leader saved: a standby knows by it what a start knows by its file.
void Deployment::take_up_saved() {
  if (std::exchange(saved_waits_, true)) return;
  when_idle([this] {
    saved_waits_ = false;
    if (!standing_by_) return;
    load([this](Recovered recovered, const std::string&) {
      if (!standing_by_ || !recovered.state) return;
      rebalancer_.follow(std::move(*recovered.state), read_clock());
      announce_newest();
    });
  });
}

void Deployment::lead(const Leadership& won) {
  leads_until_ = won.until;
  won_fence_ = won.fence;
  when_idle([this, won] {
    store_.fence(won.fence);
    load([this, won](Recovered recovered, const std::string& failure) {
      // Lost since, or lost and won again: then another load is on its way.
      if (won_fence_ != won.fence || read_clock().steady >= leads_until_) return;
      if (!failure.empty()) return stand_by("the state cannot be loaded: " + failure);
      if (recovered.state) rebalancer_.follow(std::move(*recovered.state), read_clock());
      begin_to_lead(won.term);
    });
  });
}

void Deployment::begin_to_lead(uint64_t term) {
  standing_by_ = false;
  retry_at_ = {};
  rebalancer_.begin_term(term);
  log(LogLevel::info,
      fmt::format("leads, from placement {} on", to_text(rebalancer_.group().published().id)));
  announce_newest();
  publish_recovered();
}

// What was published is published once more under a name of this leader: all that an earlier one
// may still have on its way is below it. A tick tries it again where it could not be saved, or
// workers said meanwhile that they run something else.
void Deployment::publish_recovered() {
  owes_recovered_ = false;
  Decision decision = rebalancer_.plan_recovered(read_clock());
  if (decision.verdict != Verdict::update) return save_now("", nullptr);
  carry_out(std::move(decision), [this](const OrderResult& result) {
    owes_recovered_ = result.status != OrderResult::Status::done;
  });
}

std::optional<std::string> Deployment::refuses_orders() const {
  if (leads()) return std::nullopt;
  return "this daemon stands by: " +
         (leader_.empty() ? "none is known to lead" : leader_ + " leads, and takes orders");
}

void Deployment::step_down(OrderDone done) {
  when_idle([this, done = std::move(done)] {
    if (const auto why = refuses_orders()) {
      return done({OrderResult::Status::refused, *why, {}});
    }
    if (!stands_by_hook_) {
      return done({OrderResult::Status::refused, "this daemon serves alone: see docs/ha.md", {}});
    }
    stand_by("an operator's order");
    done({OrderResult::Status::done, "this daemon leads no longer", {}});
  });
}

}  // namespace eplbd
