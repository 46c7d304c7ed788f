// A placement to many subscribers, through real sockets: how long the loop is at it, and when the
// first and the last of them have it. They share this machine, on which a deployment's do not run.
//   bench_publish [TIMES]
// SPDX-License-Identifier: Apache-2.0
#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstdlib>
#include <future>
#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "bench/descriptors.h"
#include "bench/milliseconds.h"
#include "bench/shapes.h"
#include "daemon/formats/wire.h"
#include "daemon/net/placement_publisher.h"

namespace {

using namespace eplbd;

// One socket with a connection to each of as many addresses of this machine.
class Subscribers {
 public:
  Subscribers(int count, const std::string& port) : count_(count) {
    socket_.set(zmq::sockopt::rcvhwm, 0);
    socket_.set(zmq::sockopt::rcvtimeo, 10'000);
    socket_.set(zmq::sockopt::subscribe, "bench");
    for (int i = 0; i < count; ++i) {
      socket_.connect("tcp://127.0." + std::to_string(1 + i / 250) + "." +
                      std::to_string(1 + i % 250) + ":" + port);
    }
  }
  // Receives until all of them got this payload; when each did.
  std::vector<Clock::time_point> await(std::string_view payload) {
    std::vector<Clock::time_point> got;
    zmq::message_t frame;
    while (static_cast<int>(got.size()) < count_ && socket_.recv(frame)) {
      if (frame.to_string_view() == payload) got.push_back(Clock::now());
    }
    return got;
  }
  bool all_there(PlacementPublisher& publisher, boost::asio::io_context& io) {
    for (int i = 0; i < 300; ++i) {
      const std::string beat = "beat" + std::to_string(i);
      boost::asio::post(io, [&publisher, beat] { publisher.heartbeat(beat); });
      socket_.set(zmq::sockopt::rcvtimeo, 200);
      const bool all = static_cast<int>(await(beat).size()) == count_;
      socket_.set(zmq::sockopt::rcvtimeo, 10'000);
      if (all) return true;
    }
    return false;
  }

 private:
  int count_;
  zmq::context_t context_;
  zmq::socket_t socket_{context_, zmq::socket_type::sub};
};

void publish_to(int count, int times, const Topology& topology) {
  boost::asio::io_context io;
  auto guard = boost::asio::make_work_guard(io);
  zmq::context_t context;
  PlacementPublisher publisher(io, context, "bench", {"tcp://*:*"}, nullptr, {[] {}, [] {}},
                               {.connections = 4096});
  std::thread loop([&] { io.run(); });
  {
    const std::string endpoint = publisher.endpoints()[0];
    Subscribers subscribers(count, endpoint.substr(endpoint.rfind(':') + 1));
    std::vector<double> first, last, send;
    if (!subscribers.all_there(publisher, io)) std::fprintf(stderr, "not all subscribed\n");
    for (int i = 0; i < times; ++i) {
      PlacementUpdate update;
      update.id = {1, static_cast<uint64_t>(i + 1)};
      update.placement = Placement::initial(topology);
      const std::string payload = encode_placement(update, topology);
      const auto start = Clock::now();
      std::promise<Clock::time_point> sent;
      boost::asio::post(io, [&] {
        publisher.publish(payload);
        sent.set_value(Clock::now());
      });
      const auto got = subscribers.await(payload);
      send.push_back(ms_between(start, sent.get_future().get()));
      if (static_cast<int>(got.size()) < count) std::fprintf(stderr, "lost on the way\n");
      if (got.empty()) continue;
      first.push_back(ms_between(start, got.front()));
      last.push_back(ms_between(start, got.back()));
    }
    const std::string to = "to " + std::to_string(count) + " subscribers, ";
    print((to + "on the loop").c_str(), send);
    print((to + "the first has it").c_str(), first);
    print((to + "the last has it").c_str(), last);
  }
  io.stop();
  loop.join();
}

}  // namespace

int main(int argc, char** argv) {
  const int times = argc > 1 ? std::atoi(argv[1]) : 50;
  raise_descriptors();
  const Topology topology = topology_of(58, 256, 288, 32);
  std::puts("A placement of 58 x 288 slots:\n");
  print_head();
  publish_to(320, times, topology);
  publish_to(2000, times, topology);
  return 0;
}
