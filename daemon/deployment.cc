// SPDX-License-Identifier: Apache-2.0
#include "daemon/deployment.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <tuple>
#include <utility>

#include "core/decide/resize.h"
#include "daemon/background.h"
#include "daemon/clock.h"
#include "daemon/formats/wire.h"
#include "daemon/net/placement_sink.h"

namespace eplbd {
namespace {

constexpr Duration kSaveRetry = std::chrono::seconds(1);

bool may_be_announced(const Topology& topology, const PlacementUpdate& update) {
  PlacementRules rules;
  rules.gpus_down = update.gpus_down;
  rules.allow_duplicates = true;
  return !find_violation(topology, update.placement, rules);
}

}  // namespace

Deployment::Deployment(std::string name, const Topology& topology, const RebalancerOptions& options,
                       std::optional<RebalancerState> recovered, PlacementSink& publisher,
                       StateStore& store, Background& background, Metrics& metrics,
                       std::function<void(bool)> hold_counts)
    : name_(std::move(name)),
      rebalancer_(topology, options, read_clock(), std::move(recovered)),
      publisher_(publisher),
      store_(store),
      background_(background),
      metrics_(metrics),
      hold_counts_(std::move(hold_counts)),
      started_(read_clock().unix_seconds),
      told_(settings(read_clock())) {
  announce_newest();
  // A first start leaves a state, so that the next one finds it. Who only observes has named
  // nothing: the service runs as soon as it is installed, before somebody says whose deployment it
  // is.
  unsaved_ = rebalancer_.mode() != Mode::observe;
}

Deployment::~Deployment() { background_.finish(); }

// Nothing is named before it is saved: else a crash takes (term, version) back. And a name that was
// given out keeps its map, whatever map a group reports under it; the initial one is the group's.
// What a group was found to run goes to nobody else where it breaks a rule.
void Deployment::announce(const PlacementUpdate& saved) {
  const bool known = saved.id == announced_.id && saved.id != PlacementId{};
  if (known || !may_be_announced(rebalancer_.topology(), saved)) return;
  announced_ = saved;
  if (leads()) publisher_.hold(encode_placement(saved, rebalancer_.topology()));
}

// At the start: the newest saved placement that may be and whose turn came, be it the initial one
// as engines have it.
void Deployment::announce_newest() {
  const PlacementLog& log = rebalancer_.state().placements;
  announced_ = {};
  announced_.placement = Placement::initial(rebalancer_.topology());
  if (leads()) publisher_.hold(encode_placement(announced_, rebalancer_.topology()));
  for (auto earlier = log.history.rbegin(); earlier != log.history.rend(); ++earlier) {
    announce(*earlier);
  }
  if (!log.waits) announce(log.published);
}

void Deployment::heartbeat() {
  if (!leads()) return;
  const Now now = read_clock();
  publisher_.heartbeat(encode_heartbeat({announced_.id, now.unix_seconds, rebalancer_.mode()}));
}

void Deployment::tick() {
  if (planning_) return;
  const Now now = read_clock();
  const auto dated = [this] {
    const RebalancerState& state = rebalancer_.state();
    return std::tuple(state.spent, state.paused_until_unix_seconds, state.adopted);
  };
  const auto before = dated();
  const ObserveResult passed = rebalancer_.advance(now);
  unsaved_ |= dated() != before;  // what is saved bears the date of a clock that was set
  metrics_.advanced(passed);
  note(passed);
  if (!standing_by_ && !leads()) stand_by("its lease was not renewed in time");
  unsaved_ |= rebalancer_.seconds_to_adopted(now) == 0.0;  // told once it is saved that it is
  note_changes(now);
  sample(now);
  if (busy_ || standing_by_ || now.steady < retry_at_) return;
  if (owes_recovered_) return publish_recovered();
  if (!unsaved_) return decide();
  // However often reports change the state: what it takes to save it does not keep us from
  // deciding.
  save_now("", [this](const OrderResult&) {
    if (!busy_ && save_failure_.empty()) decide();
  });
}

void Deployment::decide() {
  plan([this](Now planned) { return rebalancer_.decide(planned); },
       [this](Decision decision, double seconds) { decided(std::move(decision), seconds); });
}

void Deployment::plan(std::function<Decision(Now)> how, Planned then) {
  struct Made {
    Decision decision;
    double seconds = 0;
  };
  busy_ = planning_ = true;
  hold_counts_(true);
  const Now now = read_clock();
  const auto made = std::make_shared<Made>();
  const auto work = [now, made, how = std::move(how)] {
    const auto start = std::chrono::steady_clock::now();
    made->decision = how(now);
    made->seconds = to_seconds(std::chrono::steady_clock::now() - start);
  };
  background_.run(work, [this, made, then = std::move(then)] {
    busy_ = planning_ = false;
    hold_counts_(false);
    then(std::move(made->decision), made->seconds);
    if (!busy_) end_task();
  });
}

void Deployment::decided(Decision decision, double seconds) {
  if (!leads()) return;
  metrics_.decided(decision, seconds);
  journal_.decided(decision);
  next_update_ = decision.now.unix_seconds + decision.seconds_to_next_update;
  if (decision.verdict == Verdict::would_update) would_be_ = decision.update;
  log_decision(decision);
  if (decision.verdict == Verdict::update) return carry_out(std::move(decision), nullptr);
  if (decision.publish_again) {
    publisher_.publish_again();
    metrics_.published_again();
    log(LogLevel::warning, fmt::format("placement {} published again, as it was not applied",
                                       to_text(rebalancer_.group().published().id)));
  }
  rebalancer_.record(decision);
}

// Saved, then recorded, then published. What came in while it was saved may have made it moot.
void Deployment::carry_out(Decision decision, OrderDone done) {
  busy_ = true;
  RebalancerState state = rebalancer_.state_after(decision);
  save(std::move(state), [this, newest = newest_counts_, decision = std::move(decision),
                          done = std::move(done)](const std::string& failure) {
    save_failure_ = failure;
    OrderResult result{OrderResult::Status::done, decision.detail, decision};
    if (!failure.empty()) {
      metrics_.state_write_failed();
      log(LogLevel::error, "not published, as the state was not saved: " + failure);
      retry_at_ = read_clock().steady + kSaveRetry;
      rebalancer_.give_up(decision);
      result = {OrderResult::Status::not_saved, "the state was not saved: " + failure, {}};
    } else if (!leads()) {
      rebalancer_.give_up(decision);  // the next leader finds it
      result = {OrderResult::Status::refused, "meanwhile this daemon ceased to lead", {}};
    } else if (!rebalancer_.record(decision)) {
      unsaved_ = true;  // the file tells of an update that never was
      rebalancer_.give_up(decision);
      result = {OrderResult::Status::refused,
                "meanwhile the workers turned out to run another placement: try again",
                {}};
      warn_or_tell(true, "not published: " + result.detail);
    } else {
      publish(decision, newest);
    }
    end_task();
    if (done) done(std::move(result));
  });
}

void Deployment::publish(const Decision& decision, std::optional<TimePoint> newest_counts) {
  const PlacementUpdate& update = *decision.update;
  announce(update);
  publisher_.publish_again();
  std::optional<double> reaction;
  if (newest_counts) reaction = to_seconds(read_clock().steady - *newest_counts);
  metrics_.updated(update, reaction);
  if (update.reason == UpdateReason::resized) would_be_.reset();
  journal_.updated(update);
  const std::string imbalance = update.imbalance_before > 0
                                    ? fmt::format("imbalance {:.3f} -> {:.3f}, ",
                                                  update.imbalance_before, update.imbalance_after)
                                    : "";  // not known without tokens
  const std::string shape =
      update.reason == UpdateReason::resized ? to_text(rebalancer_.topology().shape()) + ", " : "";
  log(LogLevel::info,
      fmt::format("placement {} published ({}): {}{}{} moves, at most {} to a GPU, {} layers",
                  to_text(update.id), to_string(update.reason), shape, imbalance, decision.moves,
                  decision.worst_gpu_moves, update.changed_layers.size()));
}

void Deployment::log_decision(const Decision& decision) {
  const std::string verdict(to_string(decision.verdict));
  const bool changed = verdict != last_logged_;
  last_logged_ = verdict;
  switch (decision.verdict) {
    case Verdict::update:
      return;  // told when it is published
    case Verdict::would_update:
      if (const auto left_out = would_update_log_.admit(std::chrono::steady_clock::now())) {
        log(LogLevel::info, fmt::format("would update: {}{}", decision.detail, *left_out));
      }
      return;
    case Verdict::invalid_candidate:
    case Verdict::apply_failed:
    case Verdict::topology_mismatch:
      if (!changed) return;
      if (const auto left_out = verdict_log_.admit(std::chrono::steady_clock::now())) {
        log(LogLevel::warning, verdict + ": " + decision.detail + *left_out);
      }
      return;
    default:
      if (changed && logs(LogLevel::debug)) log(LogLevel::debug, verdict + ": " + decision.detail);
  }
}

// ---- Saving ----

void Deployment::load(std::function<void(Recovered, const std::string&)> then) {
  struct Loaded {
    Recovered recovered;
    std::string failure;
  };
  busy_ = true;
  const auto loaded = std::make_shared<Loaded>();
  const auto work = [this, loaded] {
    try {
      loaded->recovered = store_.load();
    } catch (const std::exception& error) {
      loaded->failure = error.what();
    }
  };
  background_.run(work, [this, loaded, then = std::move(then)] {
    busy_ = false;
    for (const std::string& note : loaded->recovered.notes) log(LogLevel::warning, note);
    then(std::move(loaded->recovered), loaded->failure);
    if (!busy_) end_task();
  });
}

void Deployment::save(RebalancerState state, std::function<void(const std::string&)> then) {
  const auto failure = std::make_shared<std::string>();
  const auto work = [this, failure, state = std::move(state)] {
    try {
      store_.save(state);
    } catch (const std::exception& error) {
      *failure = error.what();
    }
  };
  background_.run(work, [failure, then = std::move(then)] { then(*failure); });
}

// Saves the state as it is now, and tells workers what it tells of; `detail` is for who asked.
void Deployment::save_now(std::string detail, OrderDone done) {
  busy_ = true;
  unsaved_ = false;
  const Now now = read_clock();
  if (rebalancer_.seconds_to_adopted(now) == 0.0) rebalancer_.tell_adopted(now);
  RebalancerState state = rebalancer_.state();
  std::optional<PlacementUpdate> saved;
  if (!state.placements.waits) saved = state.placements.published;
  save(std::move(state), [this, detail = std::move(detail), saved = std::move(saved),
                          done = std::move(done)](const std::string& failure) {
    save_failure_ = failure;
    OrderResult result{OrderResult::Status::done, detail, {}};
    if (failure.empty() && leads() && saved) announce(*saved);
    if (!failure.empty()) {
      metrics_.state_write_failed();
      log(LogLevel::error, "the state was not saved, a restart would forget it: " + failure);
      retry_at_ = read_clock().steady + kSaveRetry;
      unsaved_ = true;
      result.detail += "; but it was not saved and would be forgotten at a restart: " + failure;
    }
    end_task();
    if (done) done(std::move(result));
  });
}

void Deployment::end_task() {
  busy_ = false;
  while (!busy_ && !waiting_.empty()) {
    const Task task = std::move(waiting_.front());
    waiting_.pop_front();
    task();
  }
}

void Deployment::when_idle(Task task) {
  if (busy_) {
    waiting_.push_back(std::move(task));
  } else {
    task();
  }
}

}  // namespace eplbd
