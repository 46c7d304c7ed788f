// Counts messages a second and CPU a message, through real sockets: raw libzmq that only receives,
// and the daemon's whole path (frames, wire, window, metrics), in turn and in one run.
// SPDX-License-Identifier: Apache-2.0
#include <time.h>

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "daemon/background.h"
#include "daemon/deployment.h"
#include "daemon/formats/wire.h"
#include "daemon/intake.h"
#include "daemon/net/counts_subscriber.h"
#include "daemon/net/placement_publisher.h"
#include "daemon/store/state_file.h"

namespace {

using namespace eplbd;

struct Shape {
  Topology topology;
  const char* name;
};

struct Result {
  double messages_per_second = 0;
  double cpu_microseconds = 0;  // of the receiving thread, a message
};

double thread_cpu_seconds() {
  timespec spent{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
  return static_cast<double>(spent.tv_sec) + 1e-9 * static_cast<double>(spent.tv_nsec);
}

// Sends `messages` as one source after another of `sources`, as fast as they are taken.
void send_all(zmq::context_t& context, const std::string& endpoint, const Topology& topology,
              uint64_t messages, uint64_t sources, std::future<void> received) {
  zmq::socket_t socket(context, zmq::socket_type::xpub);
  socket.set(zmq::sockopt::sndhwm, 64);
  socket.set(zmq::sockopt::xpub_nodrop, 1);  // the benchmark's sender waits
  socket.connect(endpoint);
  zmq::message_t subscription;
  (void)socket.recv(subscription);
  std::vector<uint32_t> counts(static_cast<size_t>(topology.layers) * topology.logical_experts);
  for (size_t i = 0; i < counts.size(); ++i) counts[i] = 100 + i % 7;
  for (uint64_t i = 0; i < messages; ++i) {
    const std::string source = "dp" + std::to_string(i % sources);
    CountsReport report;
    report.source = source;
    report.sequence = i / sources;
    report.epoch = 1;
    report.since = 1000;
    report.ts = 1001 + static_cast<double>(report.sequence);
    report.steps = 1;
    report.counts = PackedArray<uint32_t>(std::as_bytes(std::span(counts)));
    const std::string payload = encode_counts(report);
    socket.send(zmq::str_buffer("ds"), zmq::send_flags::sndmore);
    socket.send(zmq::buffer(encode_sequence(report.sequence)), zmq::send_flags::sndmore);
    socket.send(zmq::buffer(payload));
  }
  received.wait();
}

template <typename Receive>
Result measure(uint64_t messages, Receive receive) {
  const double cpu = thread_cpu_seconds();
  const auto start = std::chrono::steady_clock::now();
  receive();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  const auto count = static_cast<double>(messages);
  return {count / took.count(), (thread_cpu_seconds() - cpu) / count * 1e6};
}

Result raw(const Topology& topology, uint64_t messages, uint64_t sources) {
  zmq::context_t context;
  std::promise<void> done;
  std::thread sender;
  Result result;
  {
    zmq::socket_t socket(context, zmq::socket_type::sub);
    socket.set(zmq::sockopt::subscribe, "ds");
    socket.bind("tcp://127.0.0.1:*");
    sender = std::thread(send_all, std::ref(context), socket.get(zmq::sockopt::last_endpoint),
                         std::cref(topology), messages, sources, done.get_future());
    zmq::message_t frame;
    result = measure(messages, [&] {
      for (uint64_t i = 0; i < messages * kWireFrames; ++i) (void)socket.recv(frame);
    });
    done.set_value();
  }
  sender.join();
  return result;
}

Result ours(const Topology& topology, uint64_t messages, uint64_t sources,
            const std::string& directory) {
  zmq::context_t context;
  boost::asio::io_context io;
  StateFile file(directory, "ds", topology);
  Background background(io);
  Metrics metrics("ds", topology, "bench");
  PlacementPublisher publisher(io, context, "ds", {"tcp://127.0.0.1:*"}, nullptr, {[] {}, [] {}});
  Deployment deployment("ds", topology, {}, {}, publisher, file, background, metrics, [](bool) {});
  uint64_t received = 0;
  CountsHandler handler = intake_of(deployment, nullptr);
  handler.message = [take = handler.message, &received](const CountsMessage& message) {
    take(message);
    ++received;
  };
  handler.rejected = [](RejectReason, std::string_view) { std::abort(); };
  std::promise<void> done;
  std::thread sender;
  Result result;
  {
    CountsSubscriber subscriber(io, context, "ds", {"tcp://127.0.0.1:*"}, nullptr, handler);
    sender = std::thread(send_all, std::ref(context), subscriber.endpoints()[0],
                         std::cref(topology), messages, sources, done.get_future());
    result = measure(messages, [&] {
      while (received < messages) io.run_one();
    });
    done.set_value();
  }
  sender.join();
  return result;
}

Result median(std::vector<Result> results) {
  const auto middle = results.begin() + static_cast<std::ptrdiff_t>(results.size() / 2);
  const auto by_cpu = [](const Result& a, const Result& b) {
    return a.cpu_microseconds < b.cpu_microseconds;
  };
  std::nth_element(results.begin(), middle, results.end(), by_cpu);
  return *middle;
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t messages = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 20'000;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 3;
  const std::vector<Shape> shapes = {
      {{.layers = 24,
        .logical_experts = 32,
        .slots = 40,
        .gpus = 8,
        .layer_ids = {},
        .gpu_speeds = {}},
       "24 x 32"},
      {{.layers = 58,
        .logical_experts = 256,
        .slots = 288,
        .gpus = 32,
        .layer_ids = {},
        .gpu_speeds = {}},
       "58 x 256"},
      {{.layers = 61,
        .logical_experts = 512,
        .slots = 1024,
        .gpus = 256,
        .layer_ids = {},
        .gpu_speeds = {}},
       "61 x 512"},
  };
  std::string directory = (std::filesystem::temp_directory_path() / "eplbd-bench-XXXXXX").string();
  if (mkdtemp(directory.data()) == nullptr) return 1;
  std::printf(
      "| layers x experts | sources | raw libzmq, messages/s | us CPU | eplbd, messages/s "
      "| us CPU | ours a message, us |\n|---|---|---|---|---|---|---|\n");
  for (const Shape& shape : shapes) {
    for (const uint64_t sources : {uint64_t{1}, uint64_t{64}}) {
      std::vector<Result> plain;
      std::vector<Result> whole;
      for (int round = 0; round < rounds; ++round) {
        plain.push_back(raw(shape.topology, messages, sources));
        whole.push_back(ours(shape.topology, messages, sources, directory));
      }
      const Result a = median(plain);
      const Result b = median(whole);
      std::printf("| %s | %lu | %.0f | %.1f | %.0f | %.1f | %.1f |\n", shape.name,
                  static_cast<unsigned long>(sources), a.messages_per_second, a.cpu_microseconds,
                  b.messages_per_second, b.cpu_microseconds,
                  b.cpu_microseconds - a.cpu_microseconds);
      std::fflush(stdout);
    }
  }
  std::filesystem::remove_all(directory);
  return 0;
}
