// SPDX-License-Identifier: Apache-2.0
#include "daemon/daemon.h"

#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <filesystem>
#include <stdexcept>

#include "core/decide/resize.h"
#include "daemon/background.h"
#include "daemon/clock.h"
#include "daemon/control.h"
#include "daemon/deployment.h"
#include "daemon/etcd/etcd_store.h"
#include "daemon/http_routes.h"
#include "daemon/intake.h"
#include "daemon/limits.h"
#include "daemon/log.h"
#include "daemon/membership.h"
#include "daemon/net/counts_subscriber.h"
#include "daemon/net/curve_server.h"
#include "daemon/net/http_server.h"
#include "daemon/net/placement_publisher.h"
#include "daemon/service_manager.h"
#include "daemon/store/state_file.h"
#include "daemon/version.h"

namespace eplbd {
namespace {

namespace asio = boost::asio;
using ErrorCode = boost::system::error_code;

constexpr auto kHeartbeatInterval = std::chrono::seconds(1);
constexpr auto kTrimInterval = std::chrono::seconds(10);
constexpr size_t kTrimBytes = 32 << 20;

std::unique_ptr<StateStore> store_of(const Config& config) {
  if (config.ha.etcd.empty()) {
    return std::make_unique<StateFile>(state_directory_of(config), config.deployment,
                                       config.topology);
  }
  try {
    return std::make_unique<EtcdStore>(config.ha, config.deployment, config.topology);
  } catch (const std::runtime_error& error) {
    throw KeysError(error.what());
  }
}

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "?";
}

// What a burst left behind goes back to the system: the allocator would keep it.
void give_memory_back() {
  if (mallinfo2().fordblks > kTrimBytes) malloc_trim(0);
}

}  // namespace

// Members in the order in which they need each other; they end in the reverse one.
struct Daemon::Impl {
  Impl(const Config& start_config, std::string file);

  // ---- Start ----
  bool has_standby() const { return !config.ha.etcd.empty(); }
  std::optional<RebalancerState> recover();
  void read_keys();
  void listen();

  // ---- Life ----
  void start();
  void restart_tick();
  void await_signal();
  void await_tick();
  void await_heartbeat();
  void answer(const HttpRequest& request, const HttpRespond& respond, bool with_orders);
  // `done` is told why it was refused, or an empty string, once it took effect.
  void reload(std::function<void(const std::string&)> done);
  void stop();

  Config config;
  std::string config_file;
  Limits limits;
  std::unique_ptr<StateStore> store;
  asio::io_context io;
  Background background;
  zmq::context_t zmq;  // of all sockets: made before them, ended after them
  Metrics metrics;
  std::unique_ptr<CurveServer> curve;
  std::unique_ptr<PlacementPublisher> publisher;
  std::unique_ptr<Deployment> deployment;
  std::unique_ptr<CountsSubscriber> subscriber;
  std::unique_ptr<HttpRoutes> routes;
  std::unique_ptr<Control> control;
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<HttpServer> control_http;
  std::unique_ptr<Membership> membership;  // null: it serves alone
  asio::steady_timer tick_timer;
  asio::steady_timer heartbeat_timer;
  asio::signal_set signals;
  std::chrono::steady_clock::time_point trimmed{};
  uint16_t http_port = 0;
  std::string control_path;
  bool stopping = false;
};

Daemon::Impl::Impl(const Config& start_config, std::string file)
    : config(start_config),
      config_file(std::move(file)),
      limits(limits_for(config.topology)),
      store(store_of(config)),
      background(io),
      metrics(config.deployment, config.topology, kProgramVersion, config.metrics.expert_bytes),
      tick_timer(io),
      heartbeat_timer(io),
      signals(io, SIGTERM, SIGINT, SIGHUP) {
  auto recovered = recover();
  if (!config.security.curve_secret_key.empty()) read_keys();
  publisher = std::make_unique<PlacementPublisher>(
      io, zmq, config.deployment, config.endpoints.placements.bind, curve.get(),
      PublisherHandler{[this] { metrics.published_again(); },
                       [this] { metrics.rejected(RejectReason::unauthorized); },
                       [this] { return deployment->leads(); }},
      limits.placements);
  deployment = std::make_unique<Deployment>(config.deployment, config.topology, config.rebalancer,
                                            std::move(recovered), *publisher, *store, background,
                                            metrics, [this](bool on) {
                                              if (subscriber) subscriber->hold(on);
                                            });
  subscriber = std::make_unique<CountsSubscriber>(
      io, zmq, config.deployment, config.endpoints.counts.bind, curve.get(),
      intake_of(*deployment, curve.get()), limits.counts);
  control = std::make_unique<Control>(*deployment, [this](const auto& done) { reload(done); });
  listen();
  if (has_standby()) {
    membership = std::make_unique<Membership>(io, config.ha, *deployment,
                                              fmt::format("{}:{}", host_name(), http_port));
  }
}

std::optional<RebalancerState> Daemon::Impl::recover() {
  if (has_standby()) return std::nullopt;  // once it leads
  Recovered recovered = store->load();
  for (const std::string& note : recovered.notes) log(LogLevel::warning, note);
  const std::string directory = state_directory_of(config);
  if (recovered.state) {
    log(LogLevel::info, fmt::format("recovered placement {} from {}",
                                    to_text(recovered.state->placements.published.id), directory));
    if (const auto& shape = recovered.state->resized) {
      log(LogLevel::warning, fmt::format("it is of {}, as resized; the configuration still says {}",
                                         to_text(*shape), to_text(config.topology.shape())));
    }
  } else {
    log(LogLevel::info, fmt::format("no state in {}: asking what workers run", directory));
  }
  return std::move(recovered.state);
}

void Daemon::Impl::read_keys() try {
  curve = std::make_unique<CurveServer>(
      io, zmq, config.security.curve_secret_key, config.security.authorized_keys,
      [this](std::string_view peer) {  // counted by the sockets' monitors
        deployment->reject({RejectReason::unauthorized}, peer);
      });
} catch (const std::runtime_error& error) {
  throw KeysError(std::string("security: ") + error.what());
}

void Daemon::Impl::listen() {
  http = std::make_unique<HttpServer>(
      io,
      [this](const HttpRequest& request, const HttpRespond& respond) {
        answer(request, respond, false);
      },
      limits.http);
  http_port = http->listen_tcp(config.http.listen);
  control_path = control_socket_of(config);
  if (has_standby()) {  // it needs no state directory, in which the socket may lie
    std::filesystem::create_directories(std::filesystem::path(control_path).parent_path());
  }
  control_http = std::make_unique<HttpServer>(
      io,
      [this](const HttpRequest& request, const HttpRespond& respond) {
        answer(request, respond, true);
      },
      limits.control);
  control_http->listen_unix(control_path, "eplbd");
  const std::string host = config.http.listen.substr(0, config.http.listen.rfind(':'));
  routes = std::make_unique<HttpRoutes>(
      *deployment,
      Endpoints{subscriber->endpoints(), publisher->endpoints(),
                fmt::format("http://{}:{}", host, http_port), control_path},
      [this] { return !stopping && (!has_standby() || !deployment->leader().empty()); });
}

void Daemon::Impl::answer(const HttpRequest& request, const HttpRespond& respond,
                          bool with_orders) {
  if (with_orders && control->handle(request, respond)) return;
  respond(routes->handle(request));
}

void Daemon::Impl::start() {
  metrics.reloaded(true, read_clock().unix_seconds);
  await_signal();
  await_tick();
  await_heartbeat();
  deployment->heartbeat();
  log(LogLevel::info,
      fmt::format("eplbd {} serves {}: counts on {}, placements on {}, http on port {}, control on "
                  "{}",
                  kProgramVersion, config.deployment, fmt::join(subscriber->endpoints(), " "),
                  fmt::join(publisher->endpoints(), " "), http_port, control_path));
  tell_ready();
  tell_status(*deployment);
}

void Daemon::Impl::await_signal() {
  signals.async_wait([this](const ErrorCode& error, int signal) {
    if (error) return;
    if (signal != SIGHUP) return stop();
    reload([](const std::string&) {});
    await_signal();
  });
}

// Its time may be long from now: it begins anew.
void Daemon::Impl::restart_tick() {
  tick_timer.expires_at(std::chrono::steady_clock::now());  // ends the wait that there was
  await_tick();
}

// From the previous expiry on, so that the period does not stretch; after a stall it does not
// catch up.
void Daemon::Impl::await_tick() {
  const auto interval = config.rebalancer.trigger.interval;
  const auto now = std::chrono::steady_clock::now();
  tick_timer.expires_at(std::max(tick_timer.expiry() + interval, now));
  tick_timer.async_wait([this](const ErrorCode& error) {
    if (error || stopping) return;
    deployment->tick();
    await_tick();
  });
}

// systemd's watchdog is fed from here: a loop that is stuck does not.
void Daemon::Impl::await_heartbeat() {
  heartbeat_timer.expires_after(kHeartbeatInterval);
  heartbeat_timer.async_wait([this](const ErrorCode& error) {
    if (error || stopping) return;
    deployment->heartbeat();
    tell_alive();
    if (const auto now = std::chrono::steady_clock::now(); now - trimmed >= kTrimInterval) {
      trimmed = now;
      give_memory_back();
    }
    tell_status(*deployment);
    await_heartbeat();
  });
}

void Daemon::Impl::reload(std::function<void(const std::string&)> done) {
  tell_reloading();
  const auto finish = [this, done = std::move(done)](const std::string& refused) {
    metrics.reloaded(refused.empty(), read_clock().unix_seconds);
    if (refused.empty()) {
      log(LogLevel::info, "reloaded " + config_file);
    } else {
      log(LogLevel::error, "not reloaded, the old configuration stays: " + refused);
    }
    tell_ready();
    done(refused);
  };
  try {
    Config next = read_config(config_file);
    const std::vector<std::string> fixed = unreloadable_changes(config, next);
    if (!fixed.empty()) {
      return finish(fmt::format("{}: a reload cannot change {}: restart for that", config_file,
                                fmt::join(fixed, ", ")));
    }
    if (curve) {
      curve->reload();
      subscriber->end_unauthorized();
      publisher->end_unauthorized();
    }
    const bool other_interval =
        config.rebalancer.trigger.interval != next.rebalancer.trigger.interval;
    config = std::move(next);
    if (other_interval) restart_tick();
  } catch (const std::exception& error) {
    return finish(error.what());
  }
  set_up_logging(config.log);
  deployment->set_options(config.rebalancer, [finish] { finish(""); });
}

void Daemon::Impl::stop() {
  if (stopping) return;
  stopping = true;
  tell_stopping();
  log(LogLevel::info, "stopping");
  ErrorCode ignored;
  signals.cancel(ignored);
  tick_timer.cancel();
  heartbeat_timer.cancel();
  http->stop();
  control_http->stop();
  io.stop();
}

Daemon::Daemon(const Config& config, std::string config_file)
    : impl_(std::make_unique<Impl>(config, std::move(config_file))) {}

Daemon::~Daemon() = default;

void Daemon::run() {
  impl_->start();
  impl_->io.run();
}

void Daemon::stop() {
  asio::post(impl_->io, [impl = impl_.get()] { impl->stop(); });
}

std::vector<std::string> Daemon::counts_endpoints() const { return impl_->subscriber->endpoints(); }
std::vector<std::string> Daemon::placements_endpoints() const {
  return impl_->publisher->endpoints();
}
uint16_t Daemon::http_port() const { return impl_->http_port; }
const std::string& Daemon::control_socket() const { return impl_->control_path; }

}  // namespace eplbd
