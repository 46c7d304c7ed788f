// What a counts message costs, through real sockets: the daemon's whole path (frames, wire, window,
// metrics) beside raw libzmq that only receives, or also reads once what it received (from another
// core's cache), and beside a plain pass over the same memory (read the counts and the source's
// previous ones, write those, add the difference to one window), all in turn and in one run: only
// ratios mean anything.
//   bench_ingest [MESSAGES [ROUNDS [SHAPE]]]
// SPDX-License-Identifier: Apache-2.0
#include <time.h>

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "bench/shapes.h"
#include "daemon/background.h"
#include "daemon/deployment.h"
#include "daemon/formats/wire.h"
#include "daemon/intake.h"
#include "daemon/net/counts_subscriber.h"
#include "daemon/net/curve_server.h"
#include "daemon/net/placement_publisher.h"
#include "daemon/store/state_file.h"

namespace {

using namespace eplbd;

struct Case {
  const Topology& topology;
  uint64_t messages = 0;
  uint64_t sources = 0;
  bool cumulative = false;
  bool curve = false;

  size_t cells() const { return static_cast<size_t>(topology.layers) * topology.logical_experts; }
};

struct Keys {
  std::string server_public = std::string(40, '\0'), server_secret = server_public;
  std::string client_public = server_public, client_secret = server_public;

  Keys() {
    make(server_public, server_secret);
    make(client_public, client_secret);
  }

 private:
  static void make(std::string& key, std::string& secret) {
    char made[2][41];
    zmq_curve_keypair(made[0], made[1]);
    key.assign(made[0], 40);
    secret.assign(made[1], 40);
  }
};

const Keys& keys() {
  static const Keys made;
  return made;
}

struct Result {
  double messages_per_second = 0;
  double cpu_microseconds = 0;  // of the receiving thread, a message
};

double thread_cpu_seconds() {
  timespec spent{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
  return static_cast<double>(spent.tv_sec) + 1e-9 * static_cast<double>(spent.tv_nsec);
}

// Sends as one source after another, as fast as messages are taken. Every cell grows by 100 to 106
// from message to message.
void send_all(zmq::context_t& context, const std::string& endpoint, const Case& what,
              std::future<void> received) {
  zmq::socket_t socket(context, zmq::socket_type::xpub);
  socket.set(zmq::sockopt::sndhwm, 64);
  socket.set(zmq::sockopt::xpub_nodrop, 1);  // the benchmark's sender waits
  if (what.curve) {
    socket.set(zmq::sockopt::curve_serverkey, keys().server_public);
    socket.set(zmq::sockopt::curve_publickey, keys().client_public);
    socket.set(zmq::sockopt::curve_secretkey, keys().client_secret);
  }
  socket.connect(endpoint);
  zmq::message_t subscription;
  (void)socket.recv(subscription);
  std::vector<uint32_t> counts(what.cells());
  for (uint64_t i = 0; i < what.messages; ++i) {
    if (i % what.sources == 0 && (what.cumulative || i == 0)) {
      for (size_t cell = 0; cell < counts.size(); ++cell) counts[cell] += 100 + cell % 7;
    }
    const std::string source = "dp" + std::to_string(i % what.sources);
    CountsReport report;
    report.source = source;
    report.sequence = i / what.sources;
    report.epoch = 1;
    report.since = 1000;
    report.ts = 1001 + static_cast<double>(report.sequence);
    report.steps = 1;
    report.cumulative = what.cumulative;
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

Result raw(const Case& what, bool read) {
  zmq::context_t context;
  std::promise<void> done;
  std::thread sender;
  Result result;
  {
    zmq::socket_t socket(context, zmq::socket_type::sub);
    socket.set(zmq::sockopt::subscribe, "ds");
    if (what.curve) {
      socket.set(zmq::sockopt::curve_server, 1);
      socket.set(zmq::sockopt::curve_secretkey, keys().server_secret);
    }
    socket.bind("tcp://127.0.0.1:*");
    sender = std::thread(send_all, std::ref(context), socket.get(zmq::sockopt::last_endpoint),
                         std::cref(what), done.get_future());
    zmq::message_t frame;
    uint64_t sum = 0;
    result = measure(what.messages, [&] {
      for (uint64_t i = 0; i < what.messages * kWireFrames; ++i) {
        (void)socket.recv(frame);
        const auto* const words = static_cast<const uint64_t*>(frame.data());
        if (read) sum = std::accumulate(words, words + frame.size() / sizeof *words, sum);
      }
    });
    if (read && sum == 0) std::abort();
    done.set_value();
  }
  sender.join();
  return result;
}

Result plain_pass(const Case& what) {
  const std::vector<uint32_t> counts(what.cells(), 100);
  std::vector<uint32_t> window(what.cells());
  std::vector<std::vector<uint32_t>> previous(what.sources, window);
  const Result result = measure(what.messages, [&] {
    for (uint64_t i = 0; i < what.messages; ++i) {
      uint32_t* const last = previous[i % what.sources].data();
      for (size_t cell = 0; cell < counts.size(); ++cell) {
        window[cell] += counts[cell] - last[cell];
        last[cell] = counts[cell];
      }
    }
  });
  if (window[0] != 100 * std::min(what.sources, what.messages)) std::abort();
  return result;
}

std::string write_file(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
  std::filesystem::permissions(
      path, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  return path;
}

Result ours(const Case& what, const std::string& directory) {
  zmq::context_t context;
  boost::asio::io_context io;
  std::unique_ptr<CurveServer> curve;
  if (what.curve) {
    std::string authorized = keys().client_public + " source";
    for (uint64_t i = 0; i < what.sources; ++i) authorized += " dp" + std::to_string(i);
    std::filesystem::create_directories(directory + "/keys");
    write_file(directory + "/keys/workers.pub", authorized + "\n");
    curve = std::make_unique<CurveServer>(
        io, context, write_file(directory + "/secret", keys().server_secret + "\n"),
        directory + "/keys", [](std::string_view) { std::abort(); });
  }
  StateFile file(directory, "ds", what.topology);
  Background background(io);
  Metrics metrics("ds", what.topology, "bench");
  PlacementPublisher publisher(io, context, "ds", {"tcp://127.0.0.1:*"}, nullptr, {[] {}, [] {}});
  Deployment deployment("ds", what.topology, {}, {}, publisher, file, background, metrics,
                        [](bool) {});
  uint64_t received = 0;
  CountsHandler handler = intake_of(deployment, curve.get());
  handler.message = [take = handler.message, &received](const CountsMessage& message) {
    take(message);
    ++received;
  };
  handler.rejected = [](RejectReason, std::string_view) { std::abort(); };
  std::promise<void> done;
  std::thread sender;
  Result result;
  {
    CountsSubscriber subscriber(io, context, "ds", {"tcp://127.0.0.1:*"}, curve.get(), handler);
    sender = std::thread(send_all, std::ref(context), subscriber.endpoints()[0], std::cref(what),
                         done.get_future());
    result = measure(what.messages, [&] {
      while (received < what.messages) io.run_one();
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

void compare(const Case& what, int rounds, const std::string& directory) {
  std::vector<Result> all[4];
  for (int round = 0; round < rounds; ++round) {
    all[0].push_back(raw(what, false));
    all[3].push_back(raw(what, true));
    all[1].push_back(plain_pass(what));
    all[2].push_back(ours(what, directory));
  }
  const Result received = median(all[0]);
  const Result pass = median(all[1]);
  const Result whole = median(all[2]);
  const double to_read = median(all[3]).cpu_microseconds - received.cpu_microseconds;
  const double on_top = whole.cpu_microseconds - received.cpu_microseconds;
  std::printf("| %d x %d | %lu | %s%s | %.1f | %.1f | %.1f | %.1f | %.2f | %.2f | %.2f |\n",
              what.topology.layers, what.topology.logical_experts,
              static_cast<unsigned long>(what.sources), what.cumulative ? "cumulative" : "delta",
              what.curve ? ", CURVE" : "", received.cpu_microseconds, to_read,
              pass.cpu_microseconds, on_top, on_top / received.cpu_microseconds,
              on_top / pass.cpu_microseconds,
              whole.messages_per_second / received.messages_per_second);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t messages = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 20'000;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 3;
  const int only = argc > 3 ? std::atoi(argv[3]) : -1;
  const Topology shapes[] = {topology_of(24, 32, 40, 8), topology_of(58, 256, 288, 32),
                             topology_of(61, 512, 1024, 256)};
  std::string directory = (std::filesystem::temp_directory_path() / "eplbd-bench-XXXXXX").string();
  if (mkdtemp(directory.data()) == nullptr) return 1;
  std::puts(
      "| layers x experts | sources | kind | raw libzmq, us | to read it, us | plain pass, us | "
      "eplbd on top, us "
      "| of raw | of the pass | of raw's messages/s |\n|---|---|---|---|---|---|---|---|---|---|");
  for (int shape = 0; shape < 3; ++shape) {
    if (only >= 0 && only != shape) continue;
    for (const uint64_t sources : {1, 8, 64, 320}) {
      for (const bool cumulative : {false, true}) {
        for (const bool curve : {false, true}) {
          compare({shapes[shape], messages, sources, cumulative, curve}, rounds, directory);
        }
      }
    }
  }
  std::filesystem::remove_all(directory);
  return 0;
}
