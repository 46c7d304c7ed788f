// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/fleet.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <zmq.hpp>

#include "core/model/placement.h"
#include "eplbctl/key_file.h"
#include "eplbctl/source_counters.h"

namespace eplbd {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr Duration kStateEvery = 10s;
constexpr Duration kSubscribeAgainAfter = 1s;

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// One publisher: a data-parallel rank.
struct Publisher {
  std::string name;
  zmq::socket_t socket;
  uint64_t epoch = 0;
  uint64_t sequence = 0;
  double since = 0;
  std::vector<uint32_t> counts;      // [layers, experts], running, as last reported
  std::vector<uint32_t> gpu_tokens;  // [layers, gpus], running
};

}  // namespace

std::string simulated_source(int32_t index) { return "sim" + std::to_string(index); }

bool is_simulated(std::string_view source) {
  return source.starts_with("sim") && source.size() > 3 &&
         source.find_first_not_of("0123456789", 3) == source.npos;
}

struct Fleet::Impl {
  Impl(const Topology& shape, const FleetOptions& chosen)
      : topology(shape),
        options(chosen),
        follower(shape, from_seconds(chosen.apply_seconds)),
        subscriber(context, zmq::socket_type::sub),
        counters(chosen.sources, shape.layers, shape.logical_experts),
        reported(chosen.sources) {
    if (!options.curve_secret_key.empty()) {
      secret_key = read_key(options.curve_secret_key);
      server_key = read_key(options.curve_server_key);
    }
    prepare(subscriber, options.placements);
    subscriber.set(zmq::sockopt::subscribe, options.deployment);
    const size_t cells = static_cast<size_t>(topology.layers) * topology.logical_experts;
    for (int32_t i = 0; i < options.sources; ++i) {
      Publisher source{simulated_source(i), {context, zmq::socket_type::pub}, 0, 0, 0, {}, {}};
      source.since = unix_seconds();
      source.epoch = static_cast<uint64_t>(source.since * 1e9);
      source.counts.assign(cells, 0);
      source.gpu_tokens.assign(static_cast<size_t>(topology.layers) * topology.gpus, 0);
      prepare(source.socket, options.counts);
      sources.push_back(std::move(source));
    }
  }

  void prepare(zmq::socket_t& socket, const std::vector<std::string>& endpoints) {
    socket.set(zmq::sockopt::linger, 100);  // milliseconds
    socket.set(zmq::sockopt::sndhwm, 100);
    if (!secret_key.empty()) {
      socket.set(zmq::sockopt::curve_secretkey, secret_key);
      socket.set(zmq::sockopt::curve_publickey, public_key_of(secret_key));
      socket.set(zmq::sockopt::curve_serverkey, server_key);
    }
    for (const std::string& endpoint : endpoints) {
      try {
        socket.connect(endpoint);
      } catch (const zmq::error_t&) {
        throw std::runtime_error(endpoint +
                                 " is no address to connect to, as tcp://127.0.0.1:15557 is");
      }
    }
  }

  void send(Publisher& source, const std::string& payload) {
    const std::string sequence = encode_sequence(source.sequence++);
    source.socket.send(zmq::buffer(options.deployment), zmq::send_flags::sndmore);
    source.socket.send(zmq::buffer(sequence), zmq::send_flags::sndmore);
    source.socket.send(zmq::buffer(payload), zmq::send_flags::dontwait);
    ++messages;
  }

  // Where a source's new tokens went: each expert's, evenly over its replicas.
  void count_gpu_tokens(std::span<const uint32_t> now, Publisher& source) const {
    const ReplicaTable table = replica_table(topology, follower.serving());
    for (size_t cell = 0; cell < now.size(); ++cell) {
      const uint32_t tokens = now[cell] - source.counts[cell];
      const auto count = static_cast<uint32_t>(table.logical_replica_count[cell]);
      if (tokens == 0 || count == 0) continue;
      const size_t layer = cell / static_cast<size_t>(topology.logical_experts);
      for (uint32_t i = 0; i < count; ++i) {
        const int32_t slot = table.logical_to_physical[cell * table.width + i];
        const uint32_t rest = (i + messages) % count < tokens % count ? 1 : 0;
        source.gpu_tokens[layer * topology.gpus + topology.gpu_of(slot)] += tokens / count + rest;
      }
    }
  }

  void report_counts(int32_t index) {
    Publisher& source = sources[index];
    const std::span<const uint32_t> running = counters.report(index, step_counts);
    count_gpu_tokens(running, source);
    source.counts.assign(running.begin(), running.end());
    CountsReport report;
    report.source = source.name;
    report.engine = kSimulatedEngine;
    report.epoch = source.epoch;
    report.since = source.since;
    report.ts = unix_seconds();
    report.steps = 1;
    report.running = follower.running();
    report.cumulative = true;
    report.counts = PackedArray<uint32_t>(source.counts);
    report.gpu_tokens = PackedArray<uint32_t>(source.gpu_tokens);
    send(source, encode_counts(report));
  }

  TimePoint report_due() const {
    if (reported == counters.sources()) return TimePoint::max();
    const double seconds = to_seconds(step_length) * counters.phase(reported);
    return step_start + from_seconds(seconds);
  }

  void begin_step(std::span<const uint32_t> counts, TimePoint start, Duration length) {
    follower.advance(Clock::now());
    while (reported < counters.sources()) report_counts(reported++);
    step_counts.assign(counts.begin(), counts.end());
    step_start = start;
    step_length = length;
    reported = 0;
  }

  void report_state() {
    Publisher& source = sources.front();
    StateReport report;
    report.source = source.name;
    report.engine = kSimulatedEngine;
    report.epoch = source.epoch;
    report.ts = unix_seconds();
    report.running = follower.running();
    report.status = follower.status();
    if (report.status == WorkerStatus::applied) {
      report.apply_seconds = to_seconds(follower.apply_time());
    }
    report.set_map(topology, follower.serving());
    report.inactive_gpus = true;
    send(source, encode_state(report));
    state_due = Clock::now() + kStateEvery;
  }

  void receive() {
    for (;;) {
      std::vector<zmq::message_t> frames;
      do {
        zmq::message_t frame;
        const auto flags = frames.empty() ? zmq::recv_flags::dontwait : zmq::recv_flags::none;
        if (!subscriber.recv(frame, flags)) return;
        frames.push_back(std::move(frame));
      } while (frames.back().more());
      if (frames.size() == kWireFrames && frames[0].to_string_view() == options.deployment) {
        take(frames[2].to_string_view());
      }
    }
  }

  void take(std::string_view payload) {
    DaemonMessage message = decode_daemon_message(as_bytes(payload), topology);
    if (auto* update = std::get_if<PlacementUpdate>(&message)) {
      heard = true;
      follower.on_placement(std::move(*update), Clock::now());
    } else if (const auto* heartbeat = std::get_if<Heartbeat>(&message)) {
      heard = true;
      if (follower.on_heartbeat(*heartbeat) && Clock::now() >= subscribe_due) {
        subscriber.set(zmq::sockopt::unsubscribe, options.deployment);
        subscriber.set(zmq::sockopt::subscribe, options.deployment);
        subscribe_due = Clock::now() + kSubscribeAgainAfter;
      }
    }
  }

  void run_until(TimePoint deadline) {
    for (;;) {
      receive();
      const TimePoint now = Clock::now();
      follower.advance(now);
      const bool told = follower.take_report_due();
      if (speaks && (told || now >= state_due)) report_state();
      while (now >= report_due()) report_counts(reported++);
      if (now >= deadline) return;
      TimePoint wake = std::min(deadline, report_due());
      if (speaks) wake = std::min(wake, state_due);
      if (const auto change = follower.next_change()) wake = std::min(wake, *change);
      const auto wait = std::chrono::ceil<std::chrono::milliseconds>(wake - now);
      zmq::pollitem_t item{subscriber.handle(), 0, ZMQ_POLLIN, 0};
      try {
        zmq::poll(&item, 1, std::max(wait, 0ms));
      } catch (const zmq::error_t& error) {
        if (error.num() != EINTR) throw;
        return;  // a signal: the caller looks why
      }
    }
  }

  const Topology topology;
  const FleetOptions options;
  std::string secret_key;
  std::string server_key;
  PlacementFollower follower;
  zmq::context_t context;
  zmq::socket_t subscriber;
  std::vector<Publisher> sources;
  SourceCounters counters;
  std::vector<uint32_t> step_counts;  // [layers, experts] of the step that is served now
  TimePoint step_start{};
  Duration step_length{};
  int32_t reported;  // sources that reported in it, in their order
  TimePoint state_due{};
  TimePoint subscribe_due{};
  int64_t messages = 0;
  bool heard = false;
  bool speaks = false;
};

Fleet::Fleet(const Topology& topology, const FleetOptions& options)
    : impl_(std::make_unique<Impl>(topology, options)) {}
Fleet::~Fleet() = default;

void Fleet::speak() { impl_->speaks = true; }
bool Fleet::speaks() const { return impl_->speaks; }
void Fleet::begin_step(std::span<const uint32_t> counts, TimePoint start, Duration length) {
  impl_->begin_step(counts, start, length);
}
void Fleet::run_until(TimePoint deadline) { impl_->run_until(deadline); }
const PlacementFollower& Fleet::follower() const { return impl_->follower; }
int64_t Fleet::messages() const { return impl_->messages; }
bool Fleet::heard() const { return impl_->heard; }

}  // namespace eplbd
