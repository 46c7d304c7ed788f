// From counts to a placement, through real sockets: traffic jumps, and the time is taken until the
// worker has the next placement. Twice: since the first counts of the new traffic were sent, and
// since the last ones before the placement came (what the daemon itself adds).
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "config/config.h"
#include "daemon/daemon.h"
#include "daemon/formats/wire.h"
#include "daemon/log.h"

namespace {

using namespace eplbd;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class Worker {
 public:
  Worker(const Daemon& daemon, const Topology& topology) : topology_(topology) {
    counts_.connect(daemon.counts_endpoints()[0]);
    placements_.set(zmq::sockopt::subscribe, "bench");
    placements_.connect(daemon.placements_endpoints()[0]);
    totals_.resize(static_cast<size_t>(topology.layers) * topology.logical_experts);
    jump();
  }

  // Other experts are popular from now on.
  void jump() {
    std::lognormal_distribution<double> popularity(3.0, 1.0);
    weights_.resize(totals_.size());
    for (uint32_t& weight : weights_) weight = 1 + static_cast<uint32_t>(popularity(random_));
  }

  void send_counts() {
    for (size_t i = 0; i < totals_.size(); ++i) totals_[i] += weights_[i] * 20;
    CountsReport report;
    report.source = "dp0";
    report.sequence = sequence_;
    report.epoch = 1;
    report.since = 1000;
    report.ts = 1000 + 0.02 * static_cast<double>(++sequence_);
    report.steps = 1;
    report.cumulative = true;
    report.running = held_;
    report.counts = PackedArray<uint32_t>(std::as_bytes(std::span(totals_)));
    counts_.send(zmq::str_buffer("bench"), zmq::send_flags::sndmore);
    counts_.send(zmq::buffer(encode_sequence(report.sequence)), zmq::send_flags::sndmore);
    counts_.send(zmq::buffer(encode_counts(report)));
  }

  // Whether a placement above the one it runs came within `patience`; then it runs that one.
  bool take_placement(std::chrono::milliseconds patience) {
    const auto end = Clock::now() + patience;
    while (Clock::now() < end) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
      placements_.set(zmq::sockopt::rcvtimeo, static_cast<int>(left.count()));
      zmq::message_t frame;
      if (!placements_.recv(frame)) return false;
      (void)placements_.recv(frame);
      (void)placements_.recv(frame);
      const DaemonMessage message =
          decode_daemon_message(as_bytes(frame.to_string_view()), topology_);
      const auto* update = std::get_if<PlacementUpdate>(&message);
      if (update == nullptr || update->id <= held_) continue;
      held_ = update->id;
      return true;
    }
    return false;
  }

 private:
  Topology topology_;
  zmq::context_t context_;
  zmq::socket_t counts_{context_, zmq::socket_type::pub};
  zmq::socket_t placements_{context_, zmq::socket_type::sub};
  std::mt19937 random_{1};
  std::vector<uint32_t> weights_;
  std::vector<uint32_t> totals_;
  uint64_t sequence_ = 0;
  PlacementId held_;
};

void print(const char* what, std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const auto at = [&](double share) {
    return 1e3 * seconds[static_cast<size_t>(share * static_cast<double>(seconds.size() - 1))];
  };
  std::printf("| %s | %zu | %.1f | %.1f | %.1f |\n", what, seconds.size(), at(0.5), at(0.99),
              at(1.0));
}

void run(Worker& worker, int jumps) {
  constexpr auto kPeriod = std::chrono::milliseconds(20);
  std::vector<double> since_jump;
  std::vector<double> since_counts;
  for (int i = 0; i < jumps; ++i) {
    worker.jump();
    const auto jumped = Clock::now();
    for (bool taken = false; !taken;) {
      const auto sent = Clock::now();
      worker.send_counts();
      taken = worker.take_placement(kPeriod);
      if (taken) since_counts.push_back(seconds_since(sent));
      if (seconds_since(jumped) > 30) return (void)std::fprintf(stderr, "no placement in 30 s\n");
    }
    since_jump.push_back(seconds_since(jumped));
    // The update pays for a while: after some that did not, the daemon would take its time.
    for (int round = 0; round < 25; ++round) {
      worker.send_counts();
      worker.take_placement(kPeriod);
    }
  }
  std::printf("| ms | jumps | median | p99 | worst |\n|---|---|---|---|---|\n");
  print("jump of the traffic to placement in the worker", since_jump);
  print("last counts sent to placement in the worker", since_counts);
}

}  // namespace

int main(int argc, char** argv) {
  const int jumps = argc > 1 ? std::atoi(argv[1]) : 100;
  const std::string topology =
      argc > 2 ? argv[2]
               : "{layers: 58, logical_experts: 256, slots: 288, gpus: 32, nodes: 4, groups: 8}";
  std::string folder = (std::filesystem::temp_directory_path() / "eplbd-bench-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) return 1;
  const std::string file = folder + "/eplbd.yaml";
  std::ofstream(file) << "deployment: bench\n"
                         "topology: "
                      << topology
                      << "\n"
                         "endpoints: {counts: {bind: ['tcp://127.0.0.1:*']}, placements: {bind: "
                         "['tcp://127.0.0.1:*']}}\n"
                         "http: {listen: '127.0.0.1:0'}\n"
                         "log: {level: error}\n"
                         "window: {half_life: 100ms}\n"
                         "limits: {updates_per_hour: 0}\n"
                         "trigger: {interval: 20ms, cooldown: 0ms, min_tokens_per_gpu_step: 0}\n"
                         "state: {directory: "
                      << folder << "/state}\n";
  const Config config = read_config(file);
  set_up_logging(config.log);
  {
    Daemon daemon(config, file);
    std::thread loop([&] { daemon.run(); });
    Worker worker(daemon, config.topology);
    while (!worker.take_placement(std::chrono::milliseconds(20))) worker.send_counts();
    run(worker, jumps);
    daemon.stop();
    loop.join();
  }
  std::filesystem::remove_all(folder);
  return 0;
}
