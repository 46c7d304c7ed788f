// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/world.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/io_context.hpp>
#include <variant>

#include "daemon/clock.h"
#include "daemon/formats/wire.h"

namespace eplbd {

// ---- The seams ----

struct Background::Impl {};
Background::Background(boost::asio::io_context&) {}
Background::~Background() = default;
void Background::finish() {}
void Background::run(std::function<void()> work, std::function<void()> done) {
  simulation::World::current()->run_background(std::move(work), std::move(done));
}

Now read_clock() { return simulation::World::current()->clock(); }

namespace simulation {
namespace {

constexpr double kBegan = 1'700'000'000.0;  // Unix seconds
constexpr double kSettling = 90;            // seconds, after the last fault
constexpr Duration kReconnect = std::chrono::milliseconds(100);
constexpr Duration kPlanning = std::chrono::microseconds(200);
constexpr Duration kSaving = std::chrono::milliseconds(5);
constexpr Duration kLatency = std::chrono::microseconds(300);

World* g_current = nullptr;

boost::asio::io_context& no_loop() {
  static boost::asio::io_context io;
  return io;
}

}  // namespace

World* World::current() { return g_current; }

World::World(const Scenario& scenario)
    : scenario_(scenario),
      disk_(scenario.topology),
      judge_(scenario, schedule_, disk_),
      network_(~scenario.seed),
      group_(*this, scenario) {
  g_current = this;
}

World::~World() {
  process_.reset();
  g_current = nullptr;
}

Now World::clock() const { return {schedule_.now(), kBegan + wall_ahead_ + schedule_.seconds()}; }

World::Process::Process(World& world)
    : metrics("simulated", world.scenario_.topology, "0"), background(no_loop()) {}

// ---- The process ----

void World::start() {
  if (process_) return;
  if (std::exchange(damaged_, false)) judge_.lost_its_state();
  if (std::exchange(clock_moved_, false)) judge_.lost_its_dates();
  process_ = std::make_unique<Process>(*this);
  process_->deployment = std::make_unique<Deployment>(
      "simulated", scenario_.topology, scenario_.options, disk_.load().state, *this, disk_,
      process_->background, process_->metrics,
      [process = process_.get()](bool on) { process->counts_held = on; });
  judge_.started(process_->deployment.get());
  schedule_.after(kReconnect, [this] { subscribe(); });
}

void World::kill(Duration down) {
  judge_.started(nullptr);
  process_.reset();
  held_.clear();
  schedule_.after(down, [this] { start(); });
}

void World::in_process(const std::function<void(Process&)>& task) {
  if (!process_) return;
  try {
    task(*process_);
  } catch (const Killed&) {
    return kill(down_);
  }
  while (process_ && !process_->counts_held && !process_->waiting.empty()) {
    const ToDaemon message = std::move(process_->waiting.front());
    process_->waiting.pop_front();
    message(*process_->deployment);
  }
}

void World::run_background(std::function<void()> work, std::function<void()> done) {
  const Process* const process = process_.get();
  const bool plans = process->counts_held;
  Duration takes = plans ? kPlanning : kSaving;
  if (!plans && lasts(Fault::slow_disk)) takes = from_seconds(latest(Fault::slow_disk).amount);
  const TimePoint asked = schedule_.now();
  schedule_.after(takes,
                  [this, asked, plans, process, work = std::move(work), done = std::move(done)] {
                    if (process_.get() != process) return;
                    disk_.asked = asked;
                    in_process([&](Process&) { work(); });
                    if (process_.get() != process) return;
                    if (!plans && !disk_.fails_at) clock_moved_ = false;
                    // Between what is done and that it is known to be done, messages come.
                    schedule_.after(kLatency, [this, process, done] {
                      if (process_.get() == process) in_process([&](Process&) { done(); });
                    });
                  });
}

void World::tick_and_again() {
  in_process([](Process& process) { process.deployment->tick(); });
  schedule_.after(scenario_.options.trigger.interval, [this] { tick_and_again(); });
}

void World::beat_and_again() {
  in_process([](Process& process) { process.deployment->heartbeat(); });
  if (disk_.fails_at || lasts(Fault::slow_disk)) judge_.hindered();
  judge_.check_window(schedule_.now());
  judge_.check_decides(schedule_.now());
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

void World::send(ToDaemon message) {
  carry([this, message = std::move(message)] { deliver(message); });
}

void World::deliver(const ToDaemon& message) {
  in_process([&](Process& process) {
    if (process.counts_held) {
      process.waiting.push_back(message);
    } else {
      message(*process.deployment);
    }
  });
}

void World::subscribe() {
  schedule_.after(kLatency, [this] {
    if (process_ && !held_.empty()) send_held();
  });
}

void World::send_held() {
  judge_.named(held_id_);
  auto message = decode_daemon_message(std::as_bytes(std::span(held_)), scenario_.topology);
  carry([this, update = std::get<PlacementUpdate>(std::move(message))] { group_.receive(update); });
}

void World::hold(std::string placement) {
  const auto message =
      decode_daemon_message(std::as_bytes(std::span(placement)), scenario_.topology);
  const auto& update = std::get<PlacementUpdate>(message);
  judge_.held(update);
  held_ = std::move(placement);
  held_id_ = update.id;
}

void World::publish(std::string placement) {
  hold(std::move(placement));
  send_held();
}

void World::publish_again() { send_held(); }

void World::heartbeat(std::string_view payload) {
  const auto message = decode_daemon_message(std::as_bytes(std::span(payload)), scenario_.topology);
  const PlacementId id = std::get<Heartbeat>(message).id;
  judge_.named(id);
  carry([this, id] { group_.receive_heartbeat(id); });
}

// ---- What befalls them ----

void World::set_gpu(int32_t gpu, Deployment::GpuOrder order) {
  judge_.ordered_gpus();
  in_process([&](Process& process) {
    process.deployment->order_gpu(gpu, order, [](const OrderResult&) {});
  });
}

void World::order(const Event& event) {
  const auto ignore = [](const OrderResult&) {};
  const auto later = [&](std::function<void()> what) {
    schedule_.after(from_seconds(event.length), std::move(what));
  };
  switch (event.fault) {
    case Fault::pause:
      return in_process([&](Process& p) { p.deployment->pause(event.amount, ignore); });
    case Fault::drain:
      later([this, gpu = event.who] { set_gpu(gpu, Deployment::GpuOrder::restore); });
      return set_gpu(event.who, Deployment::GpuOrder::drain);
    case Fault::rebalance:
      return in_process([&](Process& p) { p.deployment->rebalance(false, ignore); });
    case Fault::rollback:
      later([this, ignore] { in_process([&](Process& p) { p.deployment->resume(ignore); }); });
      return in_process([&](Process& p) { p.deployment->roll_back(std::nullopt, false, ignore); });
    default:
      return;
  }
}

void World::befall(const Event& event) {
  const auto kind = static_cast<size_t>(event.fault);
  latest_[kind] = &event;
  until_[kind] = schedule_.now() + from_seconds(event.length);
  const auto until = [&](std::function<void()> end) {
    schedule_.after(from_seconds(event.length), std::move(end));
  };
  const Now now = clock();
  switch (event.fault) {
    case Fault::crash:
      if (process_) kill(from_seconds(event.length));
      return;
    case Fault::crash_in_save:
      disk_.kills_at = event.number % Disk::kSteps;
      down_ = from_seconds(event.length);
      return;
    case Fault::damage:
      if (!process_) return;
      kill(from_seconds(event.length));
      disk_.damage_newest();
      damaged_ = true;
      return;
    case Fault::failing_disk:
      disk_.fails_at = event.number % Disk::kSteps;
      return until([this] { disk_.fails_at.reset(); });
    case Fault::clock:
      wall_ahead_ += event.amount;
      clock_moved_ = true;
      return;
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
      return group_.report_odd_name(
          {static_cast<uint64_t>(now.unix_seconds + event.amount), 1 + event.number},
          event.number % 2 == 0);
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
  disk_.fails_at.reset();
  for (int32_t gpu = 0; gpu < scenario_.topology.gpus; ++gpu) {
    set_gpu(gpu, Deployment::GpuOrder::restore);
  }
  in_process([](Process& p) { p.deployment->resume([](const OrderResult&) {}); });
}

std::optional<Broken> World::run() {
  try {
    start();
    tick_and_again();
    beat_and_again();
    group_.begin();
    for (const Event& event : scenario_.events) {
      schedule_.after(from_seconds(event.at), [this, &event] { befall(event); });
    }
    schedule_.run_until(Schedule::kBeginning + from_seconds(scenario_.settled));
    start();
    settle();
    schedule_.run_until(schedule_.now() + from_seconds(kSettling));
    judge_.check_settled(clock(), group_.running(), group_.tokens_per_second());
  } catch (const Broken& broken) {
    return broken;
  }
  return std::nullopt;
}

}  // namespace simulation
}  // namespace eplbd
