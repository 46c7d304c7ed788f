// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/world.h"

#include <algorithm>
#include <utility>

namespace eplbd::simulation {
namespace {

constexpr double kBegan = 1'700'000'000.0;  // Unix seconds
constexpr double kSettling = 90;            // seconds, after the last fault

World* g_current = nullptr;

void ignore(const OrderResult&) {}

}  // namespace

World* World::current() { return g_current; }

World::World(const Scenario& scenario)
    : scenario_(scenario),
      disk_(scenario.topology),
      judge_(scenario, schedule_, disk_),
      network_(~scenario.seed),
      group_(*this, scenario) {
  g_current = this;
  for (int32_t i = 0; i < scenario.daemons; ++i)
    daemons_.push_back(std::make_unique<Daemon>(*this));
}

World::~World() {
  daemons_.clear();
  g_current = nullptr;
}

Now World::clock() const { return {schedule_.now(), kBegan + wall_ahead_ + schedule_.seconds()}; }

Daemon& World::daemon_of(boost::asio::io_context& loop) {
  return **std::ranges::find(daemons_, &loop, [](const auto& daemon) { return &daemon->loop(); });
}

// ---- Daemons ----

Daemon* World::serving() {
  const auto found = std::ranges::find_if(daemons_, [](const auto& d) { return d->serves(); });
  return found == daemons_.end() ? nullptr : found->get();
}

// As a rule the one that serves.
Daemon& World::struck(uint64_t number) {
  const bool serves = number % 3 != 0;
  const auto found =
      std::ranges::find_if(daemons_, [&](const auto& d) { return d->serves() == serves; });
  return found == daemons_.end() ? *daemons_.front() : **found;
}

void World::goes_on() {
  if (std::exchange(damaged_, false)) judge_.lost_its_state();
  if (std::exchange(clock_moved_, std::nullopt)) judge_.lost_its_dates();
  if (scenario_.daemons > 1) judge_.took_over();
}

// What was asked before a daemon saw its clock says nothing of that.
void World::saved() {
  if (strikes_ != nullptr) {
    const Event& event = *std::exchange(strikes_, nullptr);
    schedule_.after(2 * kLatency, [this, &event] { strike(event); });
  }
  if (clock_moved_ && disk_.asked > *clock_moved_ + scenario_.options.trigger.interval) {
    clock_moved_.reset();
  }
}

void World::move_clock(double seconds) {
  wall_ahead_ += seconds;
  clock_moved_ = schedule_.now();
}

void World::tick_and_again() {
  for (const auto& daemon : daemons_) daemon->tick();
  schedule_.after(scenario_.options.trigger.interval, [this] { tick_and_again(); });
}

void World::beat_and_again() {
  for (const auto& daemon : daemons_) daemon->beat();
  const Daemon* const serves = serving();
  const bool hindered = disk_.fails_at || lasts(Fault::slow_disk) || lasts(Fault::cut_off);
  if (hindered || serves == nullptr || std::exchange(served_, serves) != serves) {
    judge_.hindered();
  } else {
    judge_.check_window(*serves->deployment());
    judge_.check_decides(*serves->deployment());
  }
  schedule_.after(std::chrono::seconds(1), [this] { beat_and_again(); });
}

// ---- The network ----

void World::carry(std::function<void()> deliver) {
  const double lost = network_.real();
  const double late = network_.real();
  const double again = network_.real();
  if (lasts(Fault::lossy) && lost < latest(Fault::lossy).amount) return;
  Duration delay = kLatency;
  if (lasts(Fault::late)) delay += from_seconds(late * latest(Fault::late).amount);
  if (lasts(Fault::repeating) && again < latest(Fault::repeating).amount) {
    schedule_.after(2 * delay, deliver);
  }
  schedule_.after(delay, std::move(deliver));
}

void World::send(const ToDaemon& message) {
  for (const auto& daemon : daemons_) {
    carry([daemon = daemon.get(), message] { daemon->take(message); });
  }
}

void World::subscribe() {
  for (const auto& daemon : daemons_) daemon->subscribe();
}

// ---- What befalls them ----

void World::set_gpu(int32_t gpu, Deployment::GpuOrder order) {
  Daemon* const daemon = serving();
  if (daemon == nullptr) return;
  daemon->run([this, gpu, order](Deployment& deployment) {
    deployment.order_gpu(gpu, order, [this](const OrderResult& result) {
      if (result.status != OrderResult::Status::refused) judge_.ordered_gpus();
    });
  });
}

void World::order(const Event& event) {
  const auto tell = [this](const ToDaemon& what) {
    if (Daemon* const daemon = serving()) daemon->run(what);
  };
  const auto later = [&](std::function<void()> what) {
    schedule_.after(from_seconds(event.length), std::move(what));
  };
  switch (event.fault) {
    case Fault::pause:
      return tell([&](Deployment& d) { d.pause(event.amount, ignore); });
    case Fault::drain:
      later([this, gpu = event.who] { set_gpu(gpu, Deployment::GpuOrder::restore); });
      return set_gpu(event.who, Deployment::GpuOrder::drain);
    case Fault::rebalance:
      return tell([](Deployment& d) { d.rebalance(false, ignore); });
    case Fault::rollback:
      later([tell] { tell([](Deployment& d) { d.resume(ignore); }); });
      return tell([](Deployment& d) { d.roll_back(std::nullopt, false, ignore); });
    case Fault::step_down:
      return tell([](Deployment& d) { d.step_down(ignore); });
    default:
      return;
  }
}

// Where two daemons share it, as they would share etcd, nothing becomes of the disk itself.
void World::strike(const Event& event) {
  Daemon& daemon = struck(event.number);
  const Duration length = from_seconds(event.length);
  if (event.fault == Fault::freeze) return daemon.freeze(length);
  if (event.fault == Fault::cut_off) return daemon.cut_off(length);
  if (daemon.deployment() == nullptr) return;
  daemon.kill(length);
  if (scenario_.daemons > 1 || event.fault == Fault::crash) return;
  if (event.fault == Fault::damage) {
    disk_.damage_newest();
    damaged_ = true;
  }
  if (event.amount != 0) move_clock(event.amount);
}

void World::befall(const Event& event) {
  const auto kind = static_cast<size_t>(event.fault);
  latest_[kind] = &event;
  until_[kind] = schedule_.now() + from_seconds(event.length);
  const auto until = [&](std::function<void()> end) {
    schedule_.after(from_seconds(event.length), std::move(end));
  };
  switch (event.fault) {
    case Fault::crash:
    case Fault::crash_clock:
    case Fault::freeze:
    case Fault::cut_off:
      return strike(event);
    case Fault::damage:
      if (event.number % 2 == 0) return strike(event);
      strikes_ = &event;
      return;
    case Fault::crash_in_save:
      disk_.kills_at = event.number % Disk::kSteps;
      if (event.number > Disk::kSteps) disk_.kills_then_at = event.number / Disk::kSteps;
      down_ = from_seconds(event.length);
      return;
    case Fault::failing_disk:
      disk_.fails_at = event.number % Disk::kSteps;
      return until([this, &event] {
        disk_.fails_at.reset();
        group_.move_load(event.number);
      });
    case Fault::clock:
      return move_clock(event.amount);
    case Fault::worker_clock:
      return group_.move_clock(event.who, event.amount);
    case Fault::load:
      return group_.move_load(event.number);
    case Fault::worker_restart:
      return group_.restart_source(event.who);
    case Fault::group_restart:
      return group_.restart();
    case Fault::counter_reset:
      return group_.reset_counters(event.who);
    case Fault::odd_number:
      return group_.send_odd_number(event.who, event.number, static_cast<int>(event.amount));
    case Fault::odd_id:
      return group_.report_odd_name({group_.running().term, uint64_t{1} << 62}, false);
    case Fault::odd_term:
      return group_.report_rising_names();
    case Fault::flapping:
      return group_.flap();
    case Fault::strangers:
      return group_.send_strangers(event.number);
    default:
      return order(event);
  }
}

// Whatever an operator left undone is done.
void World::settle() {
  disk_.kills_at.reset();
  disk_.kills_then_at.reset();
  disk_.fails_at.reset();
  strikes_ = nullptr;
  for (int32_t gpu = 0; gpu < scenario_.topology.gpus; ++gpu) {
    set_gpu(gpu, Deployment::GpuOrder::restore);
  }
  if (Daemon* const daemon = serving()) daemon->run([](Deployment& d) { d.resume(ignore); });
}

std::optional<Broken> World::run() {
  try {
    for (const auto& daemon : daemons_) daemon->start();
    tick_and_again();
    beat_and_again();
    group_.begin();
    for (const Event& event : scenario_.events) {
      schedule_.after(from_seconds(event.at), [this, &event] { befall(event); });
    }
    schedule_.run_until(Schedule::kBeginning + from_seconds(scenario_.settled));
    for (const auto& daemon : daemons_) daemon->start();
    settle();
    schedule_.run_until(schedule_.now() + from_seconds(kSettling));
    const Daemon* const serves = serving();
    judge_.check_settled(clock(), serves != nullptr ? serves->deployment() : nullptr,
                         group_.running(), group_.tokens_per_second());
  } catch (const Broken& broken) {
    return broken;
  }
  return std::nullopt;
}

}  // namespace eplbd::simulation
