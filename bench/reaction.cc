// From counts to a placement, through real sockets: traffic jumps, and the time is taken until the
// worker has the next placement, whole and in its parts; all the while, how late the loop is for
// what is due.
//   bench_reaction [JUMPS]
// SPDX-License-Identifier: Apache-2.0
#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <random>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "bench/milliseconds.h"
#include "bench/shapes.h"
#include "daemon/background.h"
#include "daemon/deployment.h"
#include "daemon/formats/wire.h"
#include "daemon/intake.h"
#include "daemon/log.h"
#include "daemon/net/counts_subscriber.h"
#include "daemon/net/placement_publisher.h"
#include "daemon/store/state_file.h"

namespace {

using namespace eplbd;
constexpr auto kTick = std::chrono::milliseconds(20);
constexpr int kRounds = 50;  // a second, in which every source reports

// When the newest update was where.
struct Marks {
  Clock::time_point planned, decided, saved, sent;
};

class TimedStore : public StateStore {
 public:
  TimedStore(StateFile& file, Marks& marks) : file_(file), marks_(marks) {}
  Recovered load() override { return file_.load(); }
  void save(const RebalancerState& state) override {
    file_.save(state);
    marks_.saved = Clock::now();
  }

 private:
  StateFile& file_;
  Marks& marks_;
};

class TimedSink : public PlacementSink {
 public:
  TimedSink(PlacementPublisher& publisher, Marks& marks) : publisher_(publisher), marks_(marks) {}
  void hold(std::string placement) override { publisher_.hold(std::move(placement)); }
  void publish(std::string placement) override { publisher_.publish(std::move(placement)); }
  void publish_again() override {
    const std::lock_guard lock(mutex_);  // who receives it may ask at once
    publisher_.publish_again();
    marks_.sent = Clock::now();
    newest_ = marks_;
  }
  void heartbeat(std::string_view payload) override { publisher_.heartbeat(payload); }
  Marks newest() {
    const std::lock_guard lock(mutex_);
    return newest_;
  }

 private:
  PlacementPublisher& publisher_;
  Marks& marks_;
  std::mutex mutex_;
  Marks newest_;
};

RebalancerOptions options() {
  RebalancerOptions options;
  options.window.half_life = std::chrono::milliseconds(100);
  options.limits.updates_per_hour = 0;
  options.trigger.interval = kTick;
  options.trigger.cooldown = Duration{0};
  options.trigger.min_tokens_per_gpu_step = 0;
  return options;
}

// What a daemon is made of.
class Server {
 public:
  Server(const std::string& directory, const Topology& topology)
      : file_(directory, "bench", topology),
        metrics_("bench", topology, "bench"),
        deployment_("bench", topology, options(), {}, sink_, store_, background_, metrics_,
                    [this](bool on) { hold(on); }) {
    every(kTick, tick_, [this] { deployment_.tick(); });
    every(std::chrono::milliseconds(1), due_,
          [this] { late_ms_.push_back(ms_between(due_.expiry(), Clock::now())); });
    loop_ = std::thread([this] { io_.run(); });
  }
  ~Server() { stop(); }

  std::string counts() const { return subscriber_.endpoints()[0]; }
  std::string placements() const { return publisher_.endpoints()[0]; }
  Marks newest() { return sink_.newest(); }
  // How late the loop was, each time that something was due.
  std::vector<double> stop() {
    io_.stop();
    if (loop_.joinable()) loop_.join();
    return std::move(late_ms_);
  }

 private:
  void hold(bool on) {
    (on ? marks_.planned : marks_.decided) = Clock::now();
    subscriber_.hold(on);
  }
  void every(Duration period, boost::asio::steady_timer& timer, std::function<void()> act) {
    timer.expires_after(period);
    timer.async_wait([this, period, &timer, act](const boost::system::error_code& error) {
      if (error) return;
      act();
      every(period, timer, act);
    });
  }

  boost::asio::io_context io_;
  zmq::context_t context_;
  Background background_{io_};
  Marks marks_;
  StateFile file_;
  TimedStore store_{file_, marks_};
  PlacementPublisher publisher_{io_,     context_,      "bench", {"tcp://127.0.0.1:*"},
                                nullptr, {[] {}, [] {}}};
  TimedSink sink_{publisher_, marks_};
  Metrics metrics_;
  Deployment deployment_;
  CountsSubscriber subscriber_{
      io_, context_, "bench", {"tcp://127.0.0.1:*"}, nullptr, intake_of(deployment_, nullptr)};
  boost::asio::steady_timer tick_{io_};
  boost::asio::steady_timer due_{io_};
  std::vector<double> late_ms_;
  std::thread loop_;
};

// All ranks of a group: their counters, and the placement that they run.
class Fleet {
 public:
  Fleet(const Server& server, const Topology& topology, int sources)
      : topology_(topology), sources_(sources), sequence_(sources) {
    counts_.connect(server.counts());
    placements_.set(zmq::sockopt::subscribe, "bench");
    placements_.connect(server.placements());
    totals_.resize(static_cast<size_t>(topology.layers) * topology.logical_experts);
    jump();
  }

  // Other experts are popular from now on.
  void jump() {
    std::lognormal_distribution<double> popularity(3.0, 1.0);
    weights_.resize(totals_.size());
    for (uint32_t& weight : weights_) weight = 1 + static_cast<uint32_t>(popularity(random_));
  }

  // One round of a second's: each source whose turn it is. A single one reports in every round.
  void send_counts() {
    for (size_t i = 0; i < totals_.size(); ++i) totals_[i] += weights_[i] * 20;
    const int due = std::max(sources_ / kRounds, 1);
    for (int i = 0; i < due; ++i) send_counts_of(next_++ % sources_, due);
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
  void send_counts_of(int source, int due) {
    const std::string name = "dp" + std::to_string(source);
    CountsReport report;
    report.source = name;
    report.sequence = sequence_[source]++;
    report.epoch = 1;
    report.since = 1000;
    report.ts = 1000 + static_cast<double>(sequence_[source]) * sources_ / (due * kRounds);
    report.steps = 1;
    report.cumulative = true;
    report.running = held_;
    report.counts = PackedArray<uint32_t>(std::as_bytes(std::span(totals_)));
    counts_.send(zmq::str_buffer("bench"), zmq::send_flags::sndmore);
    counts_.send(zmq::buffer(encode_sequence(report.sequence)), zmq::send_flags::sndmore);
    counts_.send(zmq::buffer(encode_counts(report)));
  }

  Topology topology_;
  int sources_;
  zmq::context_t context_;
  zmq::socket_t counts_{context_, zmq::socket_type::pub};
  zmq::socket_t placements_{context_, zmq::socket_type::sub};
  std::mt19937 random_{1};
  std::vector<uint32_t> weights_;
  std::vector<uint32_t> totals_;
  std::vector<uint64_t> sequence_;
  int next_ = 0;
  PlacementId held_;
};

struct Times {
  std::vector<double> since_jump, since_counts, waiting, deciding, saving, sending, on_its_way;
};

// False: no placement came.
bool answer_jump(Server& server, Fleet& fleet, Times& times) {
  constexpr auto kRound = std::chrono::milliseconds(1000 / kRounds);
  fleet.jump();
  const auto jumped = Clock::now();
  std::vector<Clock::time_point> sent;
  for (bool taken = false; !taken; taken = fleet.take_placement(kRound)) {
    if (ms_between(jumped, Clock::now()) > 30'000) return false;
    sent.push_back(Clock::now());
    fleet.send_counts();
  }
  const auto taken = Clock::now();
  const Marks marks = server.newest();
  times.since_jump.push_back(ms_between(jumped, taken));
  const auto later = std::upper_bound(sent.begin(), sent.end(), marks.planned);
  const auto last = later == sent.begin() ? jumped : *(later - 1);
  times.since_counts.push_back(ms_between(last, taken));
  times.waiting.push_back(ms_between(last, marks.planned));
  times.deciding.push_back(ms_between(marks.planned, marks.decided));
  times.saving.push_back(ms_between(marks.decided, marks.saved));
  times.sending.push_back(ms_between(marks.saved, marks.sent));
  times.on_its_way.push_back(ms_between(marks.sent, taken));
  // The update pays for a while: after some that did not, the daemon would take its time.
  for (int round = 0; round < kRounds; ++round) {
    fleet.send_counts();
    fleet.take_placement(kRound);
  }
  return true;
}

void react(const std::string& directory, const Topology& topology, int sources, int jumps) {
  Times times;
  Server server(directory, topology);
  Fleet fleet(server, topology, sources);
  while (!fleet.take_placement(std::chrono::milliseconds(20))) fleet.send_counts();
  for (int i = 0; i < jumps; ++i) {
    if (!answer_jump(server, fleet, times)) std::fprintf(stderr, "no placement in 30 s\n");
  }
  std::printf("\n%d x %d, %d slots on %d GPUs, %d sources, a tick of %d ms:\n\n", topology.layers,
              topology.logical_experts, topology.slots, topology.gpus, sources,
              static_cast<int>(kTick.count()));
  print_head();
  print("jump of the traffic to placement in the worker", times.since_jump);
  print("last counts it was planned from to placement in the worker", times.since_counts);
  print("... waiting for the tick", times.waiting);
  print("... deciding", times.deciding);
  print("... saving", times.saving);
  print("... sending", times.sending);
  print("... on its way", times.on_its_way);
  print("the loop was late by", server.stop());
}

}  // namespace

int main(int argc, char** argv) {
  const int jumps = argc > 1 ? std::atoi(argv[1]) : 100;
  set_up_logging({.level = LogLevel::error});
  std::string folder = (std::filesystem::temp_directory_path() / "eplbd-bench-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) return 1;
  react(folder + "/v3", topology_of(58, 256, 288, 32), 1, jumps);
  react(folder + "/wide", topology_of(61, 512, 1024, 256), 256, std::max(jumps / 3, 1));
  std::filesystem::remove_all(folder);
  return 0;
}
