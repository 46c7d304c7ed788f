// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/daemon.h"

#include <algorithm>
#include <stdexcept>
#include <variant>

#include "daemon/clock.h"
#include "daemon/formats/wire.h"
#include "tests/simulation/world.h"

namespace eplbd {

// ---- The seams ----

struct Background::Impl {
  simulation::Daemon& daemon;
};
Background::Background(boost::asio::io_context& io)
    : impl_(new Impl{simulation::World::current()->daemon_of(io)}) {}
Background::~Background() = default;
void Background::finish() {}
void Background::run(std::function<void()> work, std::function<void()> done) {
  impl_->daemon.run_background(std::move(work), std::move(done));
}

Now read_clock() { return simulation::World::current()->clock(); }

namespace simulation {
namespace {

constexpr Duration kReconnect = std::chrono::milliseconds(100);
constexpr Duration kPlanning = std::chrono::microseconds(200);
constexpr Duration kSaving = std::chrono::milliseconds(5);

}  // namespace

// ---- The store ----

Recovered Daemon::Store::load() {
  World& world = daemon_.world_;
  if (world.scenario().daemons > 1 && !daemon_.reaches_store()) {
    throw std::runtime_error("no answer");
  }
  return world.disk().load();
}

void Daemon::Store::save(const RebalancerState& state) {
  World& world = daemon_.world_;
  LeaderKey& key = world.leader_key();
  if (world.scenario().daemons > 1 && !key.is_held(fence_, world.schedule().now())) {
    throw std::runtime_error("another daemon leads");
  }
  world.disk().ask(state);
  if (!daemon_.reaches_store()) throw std::runtime_error("no answer");
  world.disk().save(state);
  key.term = std::max(key.term, state.placements.highest.term);
  ++key.saves;
  world.saved();
}

// ---- The process ----

Daemon::Process::Process(Daemon& daemon)
    : store(daemon),
      metrics("simulated", daemon.world_.scenario().topology, "0"),
      background(daemon.loop_) {}

Daemon::Daemon(World& world) : world_(world) {}
Daemon::~Daemon() = default;

void Daemon::start() {
  if (process_) return;
  ++life_;
  const Scenario& scenario = world_.scenario();
  process_ = std::make_unique<Process>(*this);
  std::optional<RebalancerState> recovered;
  if (scenario.daemons == 1) {
    world_.goes_on();
    recovered = process_->store.load().state;
  }
  process_->deployment = std::make_unique<Deployment>(
      "simulated", scenario.topology, scenario.options, std::move(recovered), *this,
      process_->store, process_->background, process_->metrics,
      [process = process_.get()](bool on) { process->counts_held = on; });
  if (scenario.daemons > 1) {
    process_->membership =
        std::make_unique<Membership>(loop_, HaOptions{}, *process_->deployment, "this");
  }
  world_.judge().hindered();
  world_.schedule().after(kReconnect, [this] { subscribe(); });
}

void Daemon::kill(Duration down) {
  process_.reset();
  held_.clear();
  frozen_.clear();
  frozen_until_ = {};
  world_.schedule().after(down, [this] { start(); });
}

void Daemon::freeze(Duration length) {
  frozen_until_ = world_.schedule().now() + length;
  world_.schedule().after(length, [this] { thaw(); });
}

// Its timers are due at once, before it hears of anything.
void Daemon::thaw() {
  if (frozen()) return;
  beat();
  tick();
  while (!frozen_.empty() && !frozen()) {
    const ToDaemon task = std::move(frozen_.front());
    frozen_.pop_front();
    run(task);
  }
}

void Daemon::cut_off(Duration length) { cut_until_ = world_.schedule().now() + length; }

void Daemon::run(ToDaemon task) {
  if (!process_) return;
  if (frozen()) return frozen_.push_back(std::move(task));
  try {
    task(*process_->deployment);
  } catch (const Killed&) {
    return kill(world_.down());
  }
  while (process_ && !process_->counts_held && !process_->waiting.empty()) {
    const ToDaemon message = std::move(process_->waiting.front());
    process_->waiting.pop_front();
    message(*process_->deployment);
  }
}

void Daemon::after(Duration delay, std::function<void()> task) {
  world_.schedule().after(delay, [this, life = life_, task = std::move(task)] {
    if (life_ == life) run([task](Deployment&) { task(); });
  });
}

void Daemon::run_background(std::function<void()> work, std::function<void()> done) {
  const bool plans = process_->counts_held;
  Duration takes = plans ? kPlanning : kSaving;
  if (!plans && world_.lasts(Fault::slow_disk)) {
    takes = from_seconds(world_.latest(Fault::slow_disk).amount);
  }
  after(takes,
        [this, asked = world_.schedule().now(), work = std::move(work), done = std::move(done)] {
          world_.disk().asked = asked;
          work();
          // Between what is done and that it is known to be done, messages come.
          after(World::kLatency, done);
        });
}

// The timers of a frozen process are due once.
void Daemon::tick() {
  if (!frozen()) run([](Deployment& deployment) { deployment.tick(); });
}
void Daemon::beat() {
  if (!frozen()) run([](Deployment& deployment) { deployment.heartbeat(); });
}

void Daemon::take(ToDaemon message) {
  run([this, message = std::move(message)](Deployment& deployment) {
    if (process_->counts_held) {
      process_->waiting.push_back(message);
    } else {
      message(deployment);
    }
  });
}

const Deployment* Daemon::deployment() const {
  return process_ ? process_->deployment.get() : nullptr;
}
bool Daemon::frozen() const { return world_.schedule().now() < frozen_until_; }
bool Daemon::serves() const {
  return deployment() != nullptr && !frozen() && deployment()->leads();
}
bool Daemon::reaches_store() const { return world_.schedule().now() >= cut_until_; }
bool Daemon::holds_lease() const {
  return world_.leader_key().is_held(leadership_, world_.schedule().now());
}

// ---- Placements ----

void Daemon::subscribe() {
  world_.schedule().after(World::kLatency, [this] {
    run([this](Deployment& deployment) {
      if (deployment.leads() && !held_.empty()) send_held();
    });
  });
}

void Daemon::name(PlacementId id) {
  world_.judge().named(id, world_.scenario().daemons == 1 || holds_lease());
}

void Daemon::send_held() {
  name(held_id_);
  auto message = decode_daemon_message(std::as_bytes(std::span(held_)), world_.scenario().topology);
  world_.carry([this, update = std::get<PlacementUpdate>(std::move(message))] {
    world_.group().receive(update);
  });
}

void Daemon::hold(std::string placement) {
  held_ = std::move(placement);
  if (held_.empty()) return;
  const auto message =
      decode_daemon_message(std::as_bytes(std::span(held_)), world_.scenario().topology);
  const auto& update = std::get<PlacementUpdate>(message);
  world_.judge().held(update, deployment());
  held_id_ = update.id;
}

void Daemon::publish(std::string placement) {
  hold(std::move(placement));
  send_held();
}

void Daemon::publish_again() { send_held(); }

void Daemon::heartbeat(std::string_view payload) {
  const auto message =
      decode_daemon_message(std::as_bytes(std::span(payload)), world_.scenario().topology);
  const PlacementId id = std::get<Heartbeat>(message).id;
  name(id);
  world_.carry([this, id] { world_.group().receive_heartbeat(id); });
}

}  // namespace simulation
}  // namespace eplbd
