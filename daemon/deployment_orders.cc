// What operators order of a deployment: see daemon/deployment.h.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "daemon/clock.h"
#include "daemon/deployment.h"

namespace eplbd {

namespace {

std::string publishes_nothing(Mode mode) {
  return fmt::format("the mode is {}, which publishes nothing: set it to active for that",
                     to_string(mode));
}

const char* words_of(Deployment::GpuOrder order) {
  switch (order) {
    case Deployment::GpuOrder::drain:
      return "drained";
    case Deployment::GpuOrder::lost:
      return "lost";
    case Deployment::GpuOrder::restore:
      return "back in";
  }
  return "";
}

}  // namespace

void Deployment::order(std::function<Decision(Now)> how, bool dry_run, OrderDone done) {
  when_idle([this, how = std::move(how), dry_run, done = std::move(done)] {
    if (!dry_run && rebalancer_.mode() != Mode::active) {
      return done({OrderResult::Status::refused, publishes_nothing(rebalancer_.mode()), {}});
    }
    plan(how, [this, dry_run, done](Decision decision, double) {
      OrderResult result = planned(std::move(decision));
      const bool carry = !dry_run && result.decision && result.decision->update;
      if (!carry) return done(std::move(result));
      journal_.decided(*result.decision);
      carry_out(std::move(*result.decision),
                [done, warnings = std::move(result.warnings)](OrderResult carried) {
                  carried.warnings = warnings;
                  done(std::move(carried));
                });
    });
  });
}

// What is to be said of it before it is carried out. What is in force already is no update.
OrderResult Deployment::planned(Decision decision) const {
  using Status = OrderResult::Status;
  if (!decision.update) return {Status::refused, decision.detail, decision};
  const PlacementUpdate& update = *decision.update;
  const bool given =
      update.reason == UpdateReason::rollback || update.reason == UpdateReason::imported;
  if (given && update.changed_layers.empty() && !rebalancer_.group().pending()) {
    return {Status::done, "it is in force already: no new version, and nothing is held", {}};
  }
  OrderResult result{Status::done, decision.detail, decision};
  if (given && decision.imbalance > 0 && decision.imbalance_after > decision.imbalance) {
    result.warnings.push_back(fmt::format(
        "imbalance rises, {:.3f} -> {:.3f}: expert layers take {:.0f} % longer", decision.imbalance,
        decision.imbalance_after, (decision.imbalance_after / decision.imbalance - 1) * 100));
  }
  if (rebalancer_.live_sources(decision.now) == 0) {
    result.warnings.push_back("no worker is heard: it is for those that connect later");
  }
  return result;
}

void Deployment::rebalance(bool dry_run, OrderDone done) {
  order([this](Now now) { return rebalancer_.plan_rebalance(now); }, dry_run, std::move(done));
}

void Deployment::roll_back(std::optional<uint64_t> version, bool dry_run, OrderDone done) {
  order([this, version](Now now) { return rebalancer_.plan_rollback(version, now); }, dry_run,
        std::move(done));
}

void Deployment::import(Placement placement, bool dry_run, OrderDone done) {
  order([this, placement = std::move(placement)](
            Now now) { return rebalancer_.plan_import(placement, now); },
        dry_run, std::move(done));
}

void Deployment::resize(Shape shape, bool dry_run, OrderDone done) {
  order([this, shape](Now now) { return rebalancer_.plan_resize(shape, now); }, dry_run,
        std::move(done));
}

void Deployment::pause(std::optional<double> seconds, OrderDone done) {
  when_idle([this, seconds, done = std::move(done)] {
    rebalancer_.pause(seconds ? read_clock().unix_seconds + *seconds : 0);
    const std::string detail =
        seconds ? fmt::format("paused for {:g} s", *seconds) : "paused until resumed";
    log(LogLevel::info, detail);
    save_now(detail, done);
  });
}

void Deployment::resume(OrderDone done) {
  when_idle([this, done = std::move(done)] {
    rebalancer_.resume();
    log(LogLevel::info, "resumed");
    save_now("resumed", done);
  });
}

void Deployment::set_mode(std::optional<Mode> mode, OrderDone done) {
  when_idle([this, mode, done = std::move(done)] {
    rebalancer_.set_mode(mode);
    const std::string detail =
        fmt::format("mode {}{}", to_string(rebalancer_.mode()), mode ? "" : ", as configured");
    log(LogLevel::info, detail);
    save_now(detail, done);
  });
}

void Deployment::order_gpu(int32_t gpu, GpuOrder order, OrderDone done) {
  when_idle([this, gpu, order, done = std::move(done)] {
    const std::vector<int32_t> down_before = rebalancer_.state().gpus_down;
    const std::vector<int32_t> lost_before = rebalancer_.state().gpus_lost;
    std::vector<int32_t> down = down_before;
    std::vector<int32_t> lost = lost_before;
    std::erase(down, gpu);
    std::erase(lost, gpu);
    if (order != GpuOrder::restore) down.push_back(gpu);
    if (order == GpuOrder::lost) lost.push_back(gpu);
    std::sort(down.begin(), down.end());
    std::sort(lost.begin(), lost.end());
    if (const auto why = rebalancer_.set_gpus_down(down, lost)) {
      return done({OrderResult::Status::refused, *why, {}});
    }
    const bool reported_empty = std::ranges::binary_search(rebalancer_.state().gpus_empty, gpu);
    const bool filled_again = order == GpuOrder::restore && reported_empty;
    if (filled_again) rebalancer_.fill_again(gpu);
    const bool as_before = down == down_before && lost == lost_before && !filled_again;
    const std::string next = as_before ? "it was so before"
                             : rebalancer_.mode() != Mode::active
                                 ? publishes_nothing(rebalancer_.mode())
                             : !down.empty() && !rebalancer_.group().may_empty_gpus()
                                 ? "it keeps its experts until workers say that they can run "
                                   "without (\"inactive_gpus\" among the features of their state)"
                                 : "the next decision sees to it";
    const std::string detail = fmt::format("GPU {} {}: {}", gpu, words_of(order), next);
    log(LogLevel::info, detail);
    save_now(detail, done);
  });
}

void Deployment::set_options(const RebalancerOptions& options, std::function<void()> done) {
  when_idle([this, options, done = std::move(done)] {
    const Now now = read_clock();
    rebalancer_.set_options(options, now);
    journal_.happened({now.unix_seconds, JournalEventKind::reload, "configuration read again"});
    done();
  });
}

}  // namespace eplbd
