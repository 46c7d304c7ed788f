// The two ends of bench/steady.py: sources that report as often as told, out of step, and bare
// libzmq that receives what they send.
//   bench_steady send ENDPOINT SOURCES MESSAGES_PER_SECOND SECONDS    prints how many it sent
//   bench_steady receive                 prints where, and at the end of its input how many came
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "bench/descriptors.h"
#include "daemon/formats/wire.h"

namespace {

using namespace eplbd;
using Clock = std::chrono::steady_clock;

constexpr size_t kCells = 58 * 256;

struct Source {
  zmq::socket_t socket;
  std::string name;
  uint64_t sequence = 0;
};

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Of one popularity, each with its own chance.
std::vector<std::vector<uint32_t>> counted_rounds() {
  std::mt19937 random(1);
  std::lognormal_distribution<double> popularity(3, 1);
  std::vector<std::vector<uint32_t>> rounds(64, std::vector<uint32_t>(kCells));
  for (size_t cell = 0; cell < kCells; ++cell) {
    std::poisson_distribution<uint32_t> tokens(popularity(random));
    for (auto& round : rounds) round[cell] = tokens(random);
  }
  return rounds;
}

// All report the same running counters: what is received costs the same.
void report(Source& source, std::span<const uint32_t> totals, double since) {
  CountsReport report;
  report.source = source.name;
  report.sequence = source.sequence++;
  report.epoch = 1;
  report.since = since;
  report.ts = unix_seconds();
  report.steps = 1;
  report.cumulative = true;
  report.counts = PackedArray<uint32_t>(std::as_bytes(totals));
  source.socket.send(zmq::str_buffer("bench"), zmq::send_flags::sndmore);
  source.socket.send(zmq::buffer(encode_sequence(report.sequence)), zmq::send_flags::sndmore);
  source.socket.send(zmq::buffer(encode_counts(report)));
}

void await_subscription(zmq::socket_t& socket) {
  zmq::message_t subscription;
  (void)socket.recv(subscription);
}

void send(const std::string& endpoint, int count, double rate, double seconds) {
  zmq::context_t context;
  context.set(zmq::ctxopt::max_sockets, count + 16);
  std::vector<Source> sources;
  for (int i = 0; i < count; ++i) {
    zmq::socket_t socket(context, zmq::socket_type::xpub);
    socket.connect(endpoint);
    sources.push_back({std::move(socket), "dp" + std::to_string(i)});
  }
  for (Source& source : sources) await_subscription(source.socket);
  std::puts("connected");
  std::fflush(stdout);
  const std::vector<std::vector<uint32_t>> rounds = counted_rounds();
  std::vector<uint32_t> totals(kCells);
  const double since = unix_seconds();
  const auto start = Clock::now();
  const auto messages = static_cast<int64_t>(rate * seconds);
  for (int64_t i = 0; i < messages; ++i) {
    std::this_thread::sleep_until(start + std::chrono::nanoseconds(static_cast<int64_t>(
                                              1e9 * static_cast<double>(i) / rate)));
    if (i % count == 0) {
      const auto& counted = rounds[static_cast<size_t>(i / count) % rounds.size()];
      for (size_t cell = 0; cell < kCells; ++cell) totals[cell] += counted[cell];
    }
    report(sources[static_cast<size_t>(i % count)], totals, since);
  }
  std::printf("%lld\n", static_cast<long long>(messages));
  std::fflush(stdout);
  (void)std::getchar();  // what was sent is on its way until it is said to be there
}

void receive() {
  zmq::context_t context;
  zmq::socket_t socket(context, zmq::socket_type::sub);
  socket.set(zmq::sockopt::subscribe, "bench");
  socket.set(zmq::sockopt::rcvtimeo, 100);
  socket.bind("tcp://127.0.0.1:*");
  std::puts(socket.get(zmq::sockopt::last_endpoint).c_str());
  std::fflush(stdout);
  std::atomic<bool> ended = false;
  std::thread input([&ended] {
    (void)std::getchar();
    ended = true;
  });
  long long frames = 0;
  zmq::message_t frame;
  while (!ended) {
    if (socket.recv(frame)) ++frames;
  }
  input.join();
  std::printf("%lld\n", frames / static_cast<long long>(kWireFrames));
}

}  // namespace

int main(int argc, char** argv) {
  raise_descriptors();
  if (argc == 6 && std::strcmp(argv[1], "send") == 0) {
    send(argv[2], std::atoi(argv[3]), std::atof(argv[4]), std::atof(argv[5]));
  } else if (argc == 2 && std::strcmp(argv[1], "receive") == 0) {
    receive();
  } else {
    std::fputs("usage: bench_steady receive | send ENDPOINT SOURCES MESSAGES_PER_SECOND SECONDS\n",
               stderr);
    return 2;
  }
  return 0;
}
