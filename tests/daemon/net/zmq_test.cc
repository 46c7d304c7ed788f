// The two bound sockets, met by plain ZeroMQ peers.
// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <map>
#include <zmq.hpp>

#include "daemon/formats/wire.h"
#include "daemon/net/counts_subscriber.h"
#include "daemon/net/placement_publisher.h"
#include "daemon/net/zmq_readable.h"
#include "tests/daemon/loop.h"

using namespace eplbd;
using Frames = std::vector<std::string>;

namespace {

constexpr auto kShort = std::chrono::milliseconds(200);

void send(zmq::socket_t& socket, const Frames& frames) {
  for (size_t i = 0; i < frames.size(); ++i) {
    const auto flags = i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none;
    socket.send(zmq::buffer(frames[i]), flags);
  }
}

Frames receive(zmq::socket_t& socket) {
  Frames frames;
  zmq::message_t frame;
  while (socket.recv(frame, zmq::recv_flags::dontwait)) {
    frames.push_back(frame.to_string());
    if (!frame.more()) break;
  }
  return frames;
}

struct Received {
  std::vector<std::string> payloads;
  std::map<RejectReason, int> rejected;
  int ended = 0;

  CountsHandler handler() {
    CountsHandler result;
    result.message = [this](const CountsMessage& message) {
      payloads.emplace_back(reinterpret_cast<const char*>(message.payload.data()),
                            message.payload.size());
    };
    result.rejected = [this](RejectReason reason, std::string_view) { ++rejected[reason]; };
    result.connection_ended = [this] { ++ended; };
    return result;
  }
};

struct CountsSetup {
  zmq::context_t context;
  boost::asio::io_context io;
  Received received;
  CountsSubscriber subscriber{io,      context,           "ds", {"tcp://127.0.0.1:*"},
                              nullptr, received.handler()};
  zmq::socket_t peer() {
    // XPUB: its first message to read is our subscription, so nothing is sent too early.
    zmq::socket_t socket(context, zmq::socket_type::xpub);
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::sndhwm, 0);
    socket.connect(subscriber.endpoints()[0]);
    REQUIRE(run_until(io, [&] { return receive(socket) == Frames{"\1ds"}; }));
    return socket;
  }
};

}  // namespace

TEST_CASE("a socket with a burst in it is drained, whatever the budget") {
  zmq::context_t context;
  zmq::socket_t in(context, zmq::socket_type::pull);
  zmq::socket_t out(context, zmq::socket_type::push);
  in.set(zmq::sockopt::rcvhwm, 0);
  out.set(zmq::sockopt::sndhwm, 0);
  in.bind("tcp://127.0.0.1:*");
  out.connect(in.get(zmq::sockopt::last_endpoint));
  constexpr int kMessages = 5000;
  for (int i = 0; i < kMessages; ++i) send(out, {"x"});

  boost::asio::io_context io;
  int received = 0;
  zmq::message_t frame;
  ZmqReadable readable(io, in, [&] {
    for (int i = 0; i < 8; ++i) {
      if (!in.recv(frame, zmq::recv_flags::dontwait)) return false;
      ++received;
    }
    return true;
  });
  CHECK(run_until(io, [&] { return received == kMessages; }));
  // And again after it was idle.
  run_for(io, kShort);
  send(out, {"x"});
  CHECK(run_until(io, [&] { return received == kMessages + 1; }));
}

TEST_CASE("a socket at rest is drained when the rest is over, and what came meanwhile at once") {
  zmq::context_t context;
  zmq::socket_t in(context, zmq::socket_type::pull);
  zmq::socket_t out(context, zmq::socket_type::push);
  in.bind("inproc://rest");
  out.connect("inproc://rest");
  boost::asio::io_context io;
  int received = 0;
  std::vector<std::chrono::steady_clock::time_point> drained;
  ZmqReadable* rests = nullptr;
  size_t rested = 0;  // after so many drains
  zmq::message_t message;
  constexpr auto kRest = std::chrono::milliseconds(50);
  ZmqReadable readable(io, in, [&] {
    while (in.recv(message, zmq::recv_flags::dontwait)) ++received;
    drained.push_back(std::chrono::steady_clock::now());
    if (received == 1 && rested == 0) {
      rests->rest(kRest);
      rested = drained.size();
    }
    return false;
  });
  rests = &readable;
  out.send(zmq::str_buffer("x"), zmq::send_flags::none);
  REQUIRE(run_until(io, [&] { return received == 1; }));
  for (int i = 0; i < 3; ++i) out.send(zmq::str_buffer("x"), zmq::send_flags::none);
  readable.recheck();  // not even then
  REQUIRE(run_until(io, [&] { return received == 4; }));
  REQUIRE(drained.size() == rested + 1);
  CHECK(drained[rested] - drained[rested - 1] >= kRest);
}

TEST_CASE("counts of many peers at once all arrive, each peer's in order") {
  CountsSetup setup;
  constexpr size_t kPeers = 16;
  constexpr int kRounds = 40;
  std::vector<zmq::socket_t> peers;
  for (size_t i = 0; i < kPeers; ++i) peers.push_back(setup.peer());
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < kPeers; ++i) {
      send(peers[i],
           {"ds", encode_sequence(round), std::to_string(i) + " " + std::to_string(round)});
    }
  }
  REQUIRE(run_until(setup.io, [&] { return setup.received.payloads.size() == kPeers * kRounds; }));
  std::map<std::string, int> next;
  for (const std::string& payload : setup.received.payloads) {
    const auto space = payload.find(' ');
    CHECK(std::stoi(payload.substr(space)) == next[payload.substr(0, space)]++);
  }
  CHECK(next.size() == kPeers);
}

TEST_CASE("counts of our topic arrive in order") {
  CountsSetup setup;
  auto peer = setup.peer();
  constexpr size_t kMessages = 2000;
  for (size_t i = 0; i < kMessages; ++i) send(peer, {"ds", encode_sequence(i), std::to_string(i)});
  REQUIRE(run_until(setup.io, [&] { return setup.received.payloads.size() == kMessages; }));
  for (size_t i = 0; i < kMessages; ++i) CHECK(setup.received.payloads[i] == std::to_string(i));
  CHECK(setup.received.rejected.empty());
}

TEST_CASE("a topic that only begins with ours is rejected, one that does not is not heard") {
  CountsSetup setup;
  auto peer = setup.peer();
  send(peer, {"ds2", encode_sequence(0), "a"});
  send(peer, {"other", encode_sequence(0), "b"});
  send(peer, {"ds", encode_sequence(0), "c"});
  REQUIRE(run_until(setup.io, [&] { return !setup.received.payloads.empty(); }));
  CHECK(setup.received.payloads == Frames{"c"});
  CHECK(setup.received.rejected == std::map<RejectReason, int>{{RejectReason::wrong_topic, 1}});
}

TEST_CASE("messages that are not three frames are rejected whole") {
  CountsSetup setup;
  auto peer = setup.peer();
  send(peer, {"ds"});
  send(peer, {"ds", "1"});
  send(peer, {"ds", "1", "2", "3"});
  send(peer, Frames(50, "ds"));
  send(peer, {"ds", encode_sequence(0), "good"});
  REQUIRE(run_until(setup.io, [&] { return !setup.received.payloads.empty(); }));
  CHECK(setup.received.payloads == Frames{"good"});
  CHECK(setup.received.rejected == std::map<RejectReason, int>{{RejectReason::wrong_frames, 4}});
}

TEST_CASE("a frame over 4 MiB ends its connection and nobody else's") {
  CountsSetup setup;
  auto good = setup.peer();
  auto bad = setup.peer();
  send(good, {"ds", encode_sequence(0), std::string(4 << 20, 'x')});  // just in bounds
  REQUIRE(run_until(setup.io, [&] { return setup.received.payloads.size() == 1; }));
  CHECK(setup.received.ended == 0);
  send(bad, {"ds", encode_sequence(0), std::string((4 << 20) + 1, 'x')});
  REQUIRE(run_until(setup.io, [&] { return setup.received.ended == 1; }));
  send(good, {"ds", encode_sequence(1), "still here"});
  REQUIRE(run_until(setup.io, [&] { return setup.received.payloads.size() == 2; }));
  CHECK(setup.received.payloads[1] == "still here");
}

TEST_CASE("an address that is taken is named") {
  CountsSetup setup;
  const std::string taken = setup.subscriber.endpoints()[0];
  CHECK_THROWS_WITH(CountsSubscriber(setup.io, setup.context, "ds", {taken}, nullptr, {}),
                    Catch::Contains(taken));
}

namespace {

struct PublisherSetup {
  zmq::context_t context;
  boost::asio::io_context io;
  int joined = 0;
  PlacementPublisher publisher{
      io, context, "ds", {"tcp://127.0.0.1:*"}, nullptr, {[this] { ++joined; }, [] {}}};
  zmq::socket_t peer(const std::string& topic = "ds") {
    zmq::socket_t socket(context, zmq::socket_type::sub);
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::subscribe, topic);
    socket.connect(publisher.endpoints()[0]);
    return socket;
  }
  Frames next(zmq::socket_t& socket) {
    Frames frames;
    run_until(io, [&] { return !(frames = receive(socket)).empty(); });
    return frames;
  }
};

}  // namespace

TEST_CASE("whoever subscribes gets the placement in force, the first one too") {
  PublisherSetup setup;
  setup.publisher.hold("first");
  auto one = setup.peer();
  CHECK(setup.next(one) == Frames{"ds", encode_sequence(0), "first"});
  setup.publisher.publish("second");
  CHECK(setup.next(one) == Frames{"ds", encode_sequence(1), "second"});
  auto late = setup.peer();
  CHECK(setup.next(late) == Frames{"ds", encode_sequence(2), "second"});
  CHECK(setup.next(one) == Frames{"ds", encode_sequence(2), "second"});  // all get it again
  CHECK(setup.joined == 2);
}

TEST_CASE("a worker that subscribes anew on its socket gets it too") {
  PublisherSetup setup;
  setup.publisher.hold("placement");
  auto one = setup.peer();
  REQUIRE(setup.next(one).size() == 3);
  one.set(zmq::sockopt::unsubscribe, "ds");
  one.set(zmq::sockopt::subscribe, "ds");
  CHECK(setup.next(one) == Frames{"ds", encode_sequence(1), "placement"});
}

TEST_CASE("many that join at once cost a few publications") {
  PublisherSetup setup;
  setup.publisher.hold("placement");
  std::vector<zmq::socket_t> peers;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) peers.push_back(setup.peer());
  size_t served = 0;
  REQUIRE(run_until(setup.io, [&] {
    served = 0;
    for (auto& peer : peers) {
      int events = peer.get(zmq::sockopt::events);
      served += (events & ZMQ_POLLIN) != 0 ? 1 : 0;
    }
    return served == peers.size();
  }));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  CHECK(setup.joined <= 2 + took.count() * 50);
}

TEST_CASE("one that subscribes again and again makes a burst, and then a publication a second") {
  PublisherSetup setup;
  setup.publisher.hold("placement");
  auto one = setup.peer();
  REQUIRE(setup.next(one).size() == 3);
  const auto start = std::chrono::steady_clock::now();
  std::chrono::duration<double> took{};
  while (took.count() < 3) {
    one.set(zmq::sockopt::unsubscribe, "ds");
    one.set(zmq::sockopt::subscribe, "ds");
    run_for(setup.io, std::chrono::milliseconds(5));
    took = std::chrono::steady_clock::now() - start;
  }
  CHECK(setup.joined >= 3);
  CHECK(setup.joined <= 11 + took.count());
  // And the last one to join is not forgotten.
  const int served = setup.joined;
  CHECK(run_until(setup.io, [&] { return setup.joined > served; }));
}

TEST_CASE("a peer that subscribes to everything but our topic is ended") {
  PublisherSetup setup;
  setup.publisher.hold("placement");
  auto one = setup.peer();
  REQUIRE(setup.next(one).size() == 3);
  zmq::socket_t other(setup.context, zmq::socket_type::sub);
  other.set(zmq::sockopt::linger, 0);
  other.set(zmq::sockopt::reconnect_ivl, -1);
  for (int i = 0; i < 200; ++i) other.set(zmq::sockopt::subscribe, "x" + std::to_string(i));
  other.set(zmq::sockopt::subscribe, "ds");
  other.connect(setup.publisher.endpoints()[0]);
  bool heard = true;
  CHECK(run_until(setup.io, [&] {
    while (!receive(other).empty()) {
    }
    setup.publisher.heartbeat("beat");
    run_for(setup.io, std::chrono::milliseconds(20));
    heard = !receive(other).empty();
    return !heard;
  }));
  while (!receive(one).empty()) {
  }
  setup.publisher.heartbeat("beat");
  CHECK(setup.next(one).size() == 3);
}

TEST_CASE("one connection too many is ended, those that are there stay") {
  zmq::context_t context;
  boost::asio::io_context io;
  Received received;
  CountsLimits limits;
  limits.peers.connections = 2;
  CountsSubscriber subscriber(io, context, "ds", {"tcp://127.0.0.1:*"}, nullptr, received.handler(),
                              limits);
  std::vector<zmq::socket_t> peers;
  for (int i = 0; i < 3; ++i) {
    zmq::socket_t& peer = peers.emplace_back(context, zmq::socket_type::xpub);
    peer.set(zmq::sockopt::linger, 0);
    peer.set(zmq::sockopt::reconnect_ivl, -1);
    peer.connect(subscriber.endpoints()[0]);
    if (i < 2) REQUIRE(run_until(io, [&] { return receive(peer) == Frames{"\1ds"}; }));
  }
  CHECK(run_until(io, [&] { return received.ended == 1; }));
  for (int i = 0; i < 2; ++i) send(peers[i], {"ds", encode_sequence(0), "x"});
  CHECK(run_until(io, [&] { return received.payloads.size() == 2; }));
}

TEST_CASE("heartbeats are sent in the same sequence") {
  PublisherSetup setup;
  setup.publisher.hold("placement");
  auto one = setup.peer();
  REQUIRE(setup.next(one).size() == 3);
  setup.publisher.heartbeat("beat");
  CHECK(setup.next(one) == Frames{"ds", encode_sequence(1), "beat"});
}

TEST_CASE("a subscription to something else costs nothing") {
  PublisherSetup setup;
  setup.publisher.hold("placement");
  auto other = setup.peer("other");
  auto one = setup.peer();
  REQUIRE(setup.next(one).size() == 3);
  run_for(setup.io, kShort);
  CHECK(setup.joined == 1);
  CHECK(receive(other).empty());
}
