// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/load.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "config/config.h"
#include "core/model/imbalance.h"
#include "eplbctl/errors.h"
#include "eplbctl/http_client.h"
#include "eplbctl/load_view.h"
#include "eplbctl/stop_signal.h"
#include "eplbctl/terminal.h"

namespace eplbd {
namespace {

using Clock = std::chrono::steady_clock;
constexpr Duration kShowEvery = std::chrono::seconds(1);
constexpr Duration kListenFor = std::chrono::milliseconds(100);  // at a time, for a daemon
constexpr int32_t kDefaultSlots = 288;
constexpr int32_t kDefaultGpus = 32;
constexpr char kDefaultDeployment[] = "deepseek-v3-decode";

// What was routed since the last line, and what it would have cost otherwise.
struct Score {
  double mean = 0;
  double peak_now = 0;
  double peak_initial = 0;

  void add(const Topology& topology, std::span<const uint32_t> counts, const Placement& now) {
    const std::vector<double> loads(counts.begin(), counts.end());
    const std::vector<double> served = gpu_loads(topology, now, loads);
    const std::vector<double> kept = gpu_loads(topology, Placement::initial(topology), loads);
    for (int32_t layer = 0; layer < topology.layers; ++layer) {
      const auto first = static_cast<ptrdiff_t>(layer) * topology.gpus;
      const auto peak = [&](const std::vector<double>& gpus) {
        return *std::max_element(gpus.begin() + first, gpus.begin() + first + topology.gpus);
      };
      for (int32_t gpu = 0; gpu < topology.gpus; ++gpu) mean += served[first + gpu] / topology.gpus;
      peak_now += peak(served);
      peak_initial += peak(kept);
    }
  }
};

// Where a daemon that binds to all addresses of this machine is reached on it.
std::vector<std::string> on_this_machine(std::vector<std::string> addresses) {
  for (std::string& address : addresses) {
    for (const auto& [all, loopback] : {std::pair{"tcp://*:", "tcp://127.0.0.1:"},
                                        {"tcp://0.0.0.0:", "tcp://127.0.0.1:"},
                                        {"tcp://[::]:", "tcp://[::1]:"}}) {
      if (address.starts_with(all)) address.replace(0, std::strlen(all), loopback);
    }
  }
  return addresses;
}

// The flags, with the daemon's configuration under them.
struct Setup {
  explicit Setup(const LoadOptions& options) : fleet(options.fleet), http(HttpOptions().listen) {
    fleet.deployment = kDefaultDeployment;
    topology.slots = kDefaultSlots;
    topology.gpus = kDefaultGpus;
    topology.layers = MixtureOptions().layers;
    topology.logical_experts = MixtureOptions().experts;
    if (!options.config.empty()) {
      const Config config = read_config(options.config);
      const std::string& engine = config.rebalancer.workers.engine;
      if (!engine.empty() && engine != kSimulatedEngine) {
        throw UsageError(options.config + ": workers.engine is " + engine +
                         ": the daemon rejects a simulated fleet, whose engine is " +
                         kSimulatedEngine);
      }
      fleet.deployment = config.deployment;
      fleet.counts = on_this_machine(config.endpoints.counts.bind);
      fleet.placements = on_this_machine(config.endpoints.placements.bind);
      http = config.http.listen;
      topology = config.topology;
    }
    if (!options.deployment.empty()) fleet.deployment = options.deployment;
    if (!options.counts.empty()) fleet.counts = options.counts;
    if (!options.placements.empty()) fleet.placements = options.placements;
    if (!options.http.empty()) http = options.http;
    if (options.slots > 0) topology.slots = options.slots;
    if (options.gpus > 0) topology.gpus = options.gpus;
  }

  FleetOptions fleet;
  Topology topology;
  std::string http;
};

std::unique_ptr<Traffic> make_traffic(const LoadOptions& options, const Topology& topology) {
  if (!options.trace.empty()) return std::make_unique<TracePlayer>(options.trace);
  MixtureOptions mixture;
  mixture.layers = topology.layers;
  mixture.experts = topology.logical_experts;
  mixture.seed = options.seed;
  mixture.step_seconds = options.interval_seconds;
  return std::make_unique<DriftingMixture>(mixture);
}

void check_shape(const Traffic& traffic, const LoadOptions& options, Topology& topology) {
  const bool same =
      traffic.layers() == topology.layers && traffic.experts() == topology.logical_experts;
  if (!same && !options.config.empty()) {
    throw std::runtime_error(options.trace + ": has " + std::to_string(traffic.layers()) +
                             " layers of " + std::to_string(traffic.experts()) +
                             " experts, the configuration has " + std::to_string(topology.layers) +
                             " of " + std::to_string(topology.logical_experts));
  }
  topology.layers = traffic.layers();
  topology.logical_experts = traffic.experts();
  for (const std::string& problem : topology.problems()) throw UsageError(problem);
}

std::string title_of(const LoadOptions& options, const Setup& setup) {
  const Topology& t = setup.topology;
  std::string title = setup.fleet.deployment + ", " + std::to_string(t.layers) + " x " +
                      std::to_string(t.logical_experts) + " experts in " + std::to_string(t.slots) +
                      " slots on " + std::to_string(t.gpus) + " GPUs, " +
                      std::to_string(setup.fleet.sources) + " sources";
  if (options.speed != 1) title += ", " + std::to_string(std::lround(options.speed)) + "x";
  return title;
}

class Show {
 public:
  Show(const LoadOptions& options, const Setup& setup)
      : json_(options.json), screen_(!options.json && is_terminal(STDOUT_FILENO)) {
    figures_.title = title_of(options, setup);
    figures_.apply_seconds = setup.fleet.apply_seconds;
    http_ = setup.http;
    if (!json_ && !screen_) std::cout << figures_.title << '\n' << load_header() << std::flush;
  }

  void show(const Fleet& fleet, const Score& score, double seconds) {
    const PlacementFollower& follower = fleet.follower();
    figures_.seconds = seconds;
    if (score.mean > 0) {
      figures_.imbalance_initial = score.peak_initial / score.mean;
      figures_.imbalance_now = score.peak_now / score.mean;
    }
    figures_.running = follower.running();
    figures_.status = to_string(follower.status());
    figures_.updates = follower.updates();
    figures_.moves = follower.moves();
    figures_.messages = fleet.messages();
    figures_.heard = fleet.heard();
    figures_.daemon = ask_daemon();
    if (json_) {
      std::cout << load_json(figures_) << std::flush;
    } else if (screen_) {
      const int columns = terminal_columns(STDOUT_FILENO);
      screen_painter_.draw(
          clip_lines(load_screen(figures_, columns), columns, terminal_rows(STDOUT_FILENO) - 1));
    } else {
      std::cout << load_line(figures_) << std::flush;
    }
  }

 private:
  // A daemon that does not answer is shown as one that says nothing.
  DaemonFigures ask_daemon() const {
    try {
      const HttpCall call{http_, "/api/v1/status", "", std::chrono::milliseconds(500)};
      return daemon_figures(nlohmann::json::parse(http_request(call).body));
    } catch (const std::exception&) {
      return {};
    }
  }

  bool json_;
  bool screen_;
  std::string http_;
  Screen screen_painter_;
  LoadFigures figures_;
};

// The fleet has heard a daemon: may it publish there?
void check_that_nobody_is_there(const Setup& setup) {
  const std::string force = "; --force publishes all the same";
  nlohmann::json status;
  try {
    const HttpCall call{setup.http, "/api/v1/status", "", std::chrono::seconds(5)};
    status = nlohmann::json::parse(http_request(call).body);
  } catch (const std::exception& error) {
    throw std::runtime_error("an eplbd is heard, but does not say whether it has workers (" +
                             words_of(error) + "): --http is its HTTP address" + force);
  }
  const std::string someone = who_is_there(status, setup.fleet.deployment);
  if (!someone.empty()) throw std::runtime_error(setup.http + ": " + someone + force);
}

}  // namespace

int run_load(const LoadOptions& options) {
  Setup setup(options);
  const std::unique_ptr<Traffic> traffic = make_traffic(options, setup.topology);
  check_shape(*traffic, options, setup.topology);
  stop_on_signals();

  Fleet fleet(setup.topology, setup.fleet);
  Show show(options, setup);
  std::vector<uint32_t> counts(static_cast<size_t>(traffic->layers()) * traffic->experts());
  const Duration step = from_seconds(options.interval_seconds / options.speed);
  const TimePoint start = Clock::now();
  const TimePoint end =
      options.seconds > 0 ? start + from_seconds(options.seconds) : TimePoint::max();
  TimePoint next_step = start;
  TimePoint next_show = start + kShowEvery;
  Score score;
  if (options.force) fleet.speak();
  while (stop_requested == 0) {
    fleet.run_until(std::min({next_step, next_show, end}));
    if (fleet.heard() && !fleet.speaks()) {
      check_that_nobody_is_there(setup);
      fleet.speak();
    }
    const TimePoint now = Clock::now();
    if (now >= next_step && !fleet.speaks()) next_step = now + kListenFor;
    if (now >= next_step) {
      traffic->next(counts);
      fleet.begin_step(counts, now, step);
      score.add(setup.topology, counts, fleet.follower().serving());
      next_step = std::max(next_step + step, now);  // late: no burst to catch up
    }
    if (now >= next_show || now >= end) {
      show.show(fleet, score, to_seconds(now - start));
      score = {};
      next_show = now + kShowEvery;
    }
    if (now >= end) break;
  }
  if (fleet.heard()) return 0;
  std::cerr << "eplbctl: load: no eplbd was heard on " << setup.fleet.placements.front()
            << " for the deployment " << setup.fleet.deployment
            << ": does it run, with this deployment, addresses and keys?\n";
  return 1;
}

}  // namespace eplbd
