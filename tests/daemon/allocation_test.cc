// Once warm, a counts message costs no allocation: from its frames through the wire, the window and
// the metrics. Counted by an operator new of our own, for this thread alone: libzmq's own threads
// and the sender do as they like.
// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cstdlib>
#include <new>
#include <thread>
#include <zmq.hpp>

#include "daemon/background.h"
#include "daemon/deployment.h"
#include "daemon/formats/wire.h"
#include "daemon/intake.h"
#include "daemon/net/counts_subscriber.h"
#include "daemon/net/placement_publisher.h"
#include "daemon/store/state_file.h"
#include "tests/daemon/folder.h"
#include "tests/daemon/loop.h"

namespace {

thread_local uint64_t allocations = 0;

void* counted(size_t size) {
  ++allocations;
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void* counted(size_t size, std::align_val_t alignment) {
  ++allocations;
  void* memory = nullptr;
  if (posix_memalign(&memory, static_cast<size_t>(alignment), size) != 0) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t size) { return counted(size); }
void* operator new[](size_t size) { return counted(size); }
void* operator new(size_t size, std::align_val_t alignment) { return counted(size, alignment); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

using namespace eplbd;

TEST_CASE("the counter counts") {
  const uint64_t before = allocations;
  ::operator delete(::operator new(1));  // compilers may leave out the pair `delete new int`
  CHECK(allocations == before + 1);
}

TEST_CASE("a counts message allocates nothing once warm") {
  const Topology topology{.layers = 58,
                          .logical_experts = 256,
                          .slots = 288,
                          .gpus = 32,
                          .layer_ids = {},
                          .gpu_speeds = {}};
  const Folder folder;
  zmq::context_t context;
  boost::asio::io_context io;
  StateFile file(folder.path(), "ds", topology);
  Background background(io);
  Metrics metrics("ds", topology, "test");
  PlacementPublisher publisher(io, context, "ds", {"tcp://127.0.0.1:*"}, nullptr, {[] {}, [] {}});
  Deployment deployment("ds", topology, {}, {}, publisher, file, background, metrics, [](bool) {});

  constexpr uint64_t kWarmUp = 50;
  constexpr uint64_t kMessages = 500;
  uint64_t received = 0;
  uint64_t spent = 0;
  CountsHandler handler = intake_of(deployment, nullptr);
  handler.message = [&, take = handler.message](const CountsMessage& message) {
    const uint64_t before = allocations;
    take(message);
    if (++received > kWarmUp) spent += allocations - before;
  };
  CountsSubscriber subscriber(io, context, "ds", {"tcp://127.0.0.1:*"}, nullptr, handler);

  std::thread sender([&, endpoint = subscriber.endpoints()[0]] {
    zmq::socket_t socket(context, zmq::socket_type::xpub);
    socket.set(zmq::sockopt::sndhwm, 0);
    socket.connect(endpoint);
    zmq::message_t subscription;
    (void)socket.recv(subscription);
    std::vector<uint32_t> counts(static_cast<size_t>(topology.layers) * topology.logical_experts);
    std::vector<uint32_t> gpu_tokens(static_cast<size_t>(topology.layers) * topology.gpus);
    for (uint64_t i = 0; i < kWarmUp + kMessages; ++i) {
      for (uint32_t& count : counts) count += 3;
      for (uint32_t& tokens : gpu_tokens) tokens += 24;
      CountsReport report;
      report.source = i % 2 == 0 ? "dp0" : "dp1";
      report.sequence = i / 2;
      report.epoch = 1;
      report.since = 1000;
      report.ts = 1001 + static_cast<double>(i);
      report.steps = 1;
      report.cumulative = true;
      report.counts = PackedArray<uint32_t>(std::as_bytes(std::span(counts)));
      report.gpu_tokens = PackedArray<uint32_t>(std::as_bytes(std::span(gpu_tokens)));
      const std::string payload = encode_counts(report);
      socket.send(zmq::str_buffer("ds"), zmq::send_flags::sndmore);
      socket.send(zmq::buffer(encode_sequence(report.sequence)), zmq::send_flags::sndmore);
      socket.send(zmq::buffer(payload));
    }
  });
  const bool all = run_until(io, [&] { return received == kWarmUp + kMessages; });
  sender.join();
  REQUIRE(all);
  CHECK(deployment.rebalancer().sources().sources().find("dp0")->second.messages == 275);
  CHECK(deployment.rebalancer().sources().sources().size() == 2);
  CHECK(spent == 0);
}
