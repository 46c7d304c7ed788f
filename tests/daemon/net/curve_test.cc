// CURVE on both sockets: who gets in, and for whom a key may speak.
// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <catch2/catch.hpp>
#include <map>
#include <string>
#include <zmq.hpp>

#include "daemon/net/counts_subscriber.h"
#include "daemon/net/curve_server.h"
#include "daemon/net/placement_publisher.h"
#include "tests/daemon/folder.h"
#include "tests/daemon/loop.h"

using namespace eplbd;
using boost::asio::ip::tcp;

namespace {

struct Keys {
  Keys() { zmq_curve_keypair(public_key, secret_key); }
  char public_key[41] = {};
  char secret_key[41] = {};
};

// ZMTP 3.1, RFC 37: signature, version, mechanism, a client, filler.
std::string null_greeting() {
  std::string greeting(64, '\0');
  greeting.replace(0, 1, "\xff");
  greeting.replace(9, 3, "\x7f\x03\x01");
  greeting.replace(12, 4, "NULL");
  return greeting;
}

struct Setup {
  Setup() {
    folder.write("secret", std::string("# the daemon's\n") + server.secret_key + "\n");
    chmod((folder / "secret").c_str(), 0600);
    std::filesystem::create_directory(folder / "keys");
    folder.write("keys/one.pub", std::string("# first rack\n") + worker.public_key +
                                     " source dp0 dp1\n\n" + watcher.public_key + " observer\n");
    curve = std::make_unique<CurveServer>(io, context, folder / "secret", folder / "keys",
                                          [this](std::string_view) { ++denied; });
    CountsHandler handler;
    handler.message = [this](const CountsMessage& message) {
      const std::string source(reinterpret_cast<const char*>(message.payload.data()),
                               message.payload.size());
      ++(curve->may_speak(message.user_id, source) ? accepted : refused)[source];
    };
    handler.rejected = [this](RejectReason, std::string_view) { ++denied; };
    handler.connection_ended = [] {};
    subscriber =
        std::make_unique<CountsSubscriber>(io, context, "ds", address, curve.get(), handler);
    publisher = std::make_unique<PlacementPublisher>(io, context, "ds", address, curve.get(),
                                                     PublisherHandler{[] {}, [this] { ++denied; }});
    publisher->hold("placement");
  }

  zmq::socket_t connect(zmq::socket_type type, const std::string& endpoint, const Keys* keys,
                        const char* server_key) {
    zmq::socket_t socket(peers, type);
    socket.set(zmq::sockopt::linger, 0);
    if (keys != nullptr) {
      socket.set(zmq::sockopt::curve_publickey, keys->public_key);
      socket.set(zmq::sockopt::curve_secretkey, keys->secret_key);
      socket.set(zmq::sockopt::curve_serverkey, server_key);
    }
    if (type == zmq::socket_type::sub) socket.set(zmq::sockopt::subscribe, "ds");
    socket.connect(endpoint);
    return socket;
  }

  // Sends as `source` until it was heard or turned away.
  void send_as(const std::string& source, const Keys* keys, const char* server_key) {
    const int before = denied;
    auto socket = connect(zmq::socket_type::pub, subscriber->endpoints()[0], keys, server_key);
    run_until(io, [&] {
      socket.send(zmq::str_buffer("ds"), zmq::send_flags::sndmore);
      socket.send(zmq::str_buffer("12345678"), zmq::send_flags::sndmore);
      socket.send(zmq::buffer(source));
      return accepted[source] + refused[source] > 0 || denied > before;
    });
  }

  bool receives(const Keys* keys, const char* server_key) {
    const int before = denied;
    zmq::message_t frame;
    bool received = false;
    auto socket = connect(zmq::socket_type::sub, publisher->endpoints()[0], keys, server_key);
    run_until(io, [&] {
      received = bool(socket.recv(frame, zmq::recv_flags::dontwait));
      return received || denied > before;
    });
    return received;
  }

  const Folder folder;
  const Keys server, worker, watcher, stranger;
  const std::vector<std::string> address = {"tcp://127.0.0.1:*"};
  zmq::context_t context;
  zmq::context_t peers;
  boost::asio::io_context io;
  std::unique_ptr<CurveServer> curve;
  std::unique_ptr<CountsSubscriber> subscriber;
  std::unique_ptr<PlacementPublisher> publisher;
  std::map<std::string, int> accepted;
  std::map<std::string, int> refused;
  int denied = 0;
};

}  // namespace

TEST_CASE("a key speaks for its own sources and no other") {
  Setup setup;
  setup.send_as("dp1", &setup.worker, setup.server.public_key);
  setup.send_as("dp2", &setup.worker, setup.server.public_key);
  CHECK(setup.accepted["dp1"] > 0);
  CHECK(setup.refused["dp1"] == 0);
  CHECK(setup.accepted["dp2"] == 0);
  CHECK(setup.refused["dp2"] > 0);
}

TEST_CASE("who has an unknown key, or takes us for another, gets nothing through") {
  Setup setup;
  const bool unknown = GENERATE(true, false);
  const Keys* keys = unknown ? &setup.stranger : &setup.worker;
  const char* server_key = unknown ? setup.server.public_key : setup.stranger.public_key;
  setup.send_as("dp0", keys, server_key);
  CHECK(setup.accepted.at("dp0") + setup.refused.at("dp0") == 0);
  CHECK(setup.denied > 0);
  CHECK_FALSE(setup.receives(keys, server_key));
}

// libzmq's own client is gone as soon as it reads that we want a key, often before we have read
// what it said, like any probe of the port; this one waits to be turned away.
TEST_CASE("who has no key is turned away at the greeting") {
  Setup setup;
  for (const std::string& endpoint :
       {setup.subscriber->endpoints()[0], setup.publisher->endpoints()[0]}) {
    const int before = setup.denied;
    tcp::socket peer(setup.io);
    const auto port = std::stoi(endpoint.substr(endpoint.rfind(':') + 1));
    peer.connect({boost::asio::ip::address_v4::loopback(), static_cast<uint16_t>(port)});
    boost::asio::write(peer, boost::asio::buffer(null_greeting()));
    CHECK(run_until(setup.io, [&] { return setup.denied > before; }));
    boost::system::error_code error;
    std::array<char, 256> answer;
    size_t size = 0;
    while (!error) size += peer.read_some(boost::asio::buffer(answer), error);
    CHECK(size <= 64);  // a greeting of its own at most
  }
}

TEST_CASE("an observer subscribes and does not send") {
  Setup setup;
  CHECK(setup.receives(&setup.watcher, setup.server.public_key));
  CHECK(setup.receives(&setup.worker, setup.server.public_key));
  CHECK(setup.denied == 0);
  setup.send_as("dp0", &setup.watcher, setup.server.public_key);
  CHECK(setup.accepted.at("dp0") + setup.refused.at("dp0") == 0);
  CHECK(setup.denied > 0);
}

TEST_CASE("keys come and go with a reload") {
  Setup setup;
  setup.folder.write("keys/one.pub", "");
  setup.folder.write("keys/two.pub", std::string(setup.stranger.public_key) + " source dp0\n");
  setup.curve->reload();
  CHECK_FALSE(setup.curve->may_speak(setup.worker.public_key, "dp0"));
  setup.send_as("dp0", &setup.stranger, setup.server.public_key);
  CHECK(setup.accepted["dp0"] > 0);
  // A folder that makes no sense changes nothing.
  setup.folder.write("keys/three.pub", "no key\n");
  CHECK_THROWS_WITH(setup.curve->reload(), Catch::Contains("three.pub:1"));
  CHECK(setup.curve->may_speak(setup.stranger.public_key, "dp0"));
}

TEST_CASE("a key that was revoked stops listening, and nobody else does") {
  Setup setup;
  zmq::message_t frame;
  const auto beats = [&](zmq::socket_t& socket) {
    setup.publisher->heartbeat("beat");
    run_for(setup.io, std::chrono::milliseconds(20));
    bool heard = false;
    while (socket.recv(frame, zmq::recv_flags::dontwait)) heard |= frame.to_string() == "beat";
    return heard;
  };
  const auto listen = [&](const Keys& keys) {
    return setup.connect(zmq::socket_type::sub, setup.publisher->endpoints()[0], &keys,
                         setup.server.public_key);
  };
  auto revoked = listen(setup.watcher);
  auto stays = listen(setup.worker);
  REQUIRE(run_until(setup.io, [&] { return beats(revoked); }));
  REQUIRE(run_until(setup.io, [&] { return beats(stays); }));
  setup.folder.write("keys/one.pub", std::string(setup.worker.public_key) + " source dp0\n");
  setup.curve->reload();
  setup.publisher->end_unauthorized();
  setup.subscriber->end_unauthorized();
  CHECK(run_until(setup.io, [&] { return !beats(revoked); }));
  CHECK(run_until(setup.io, [&] { return setup.denied > 0; }));  // it tries again
  CHECK_FALSE(beats(revoked));
  CHECK(beats(stays));
}

TEST_CASE("key files that make no sense are named with their line") {
  Setup setup;
  const std::string key = setup.worker.public_key;
  for (const std::string& line : {key, key + " source", key + " admin", key + " observer dp0",
                                  "x" + key + " observer", key.substr(1) + " observer"}) {
    setup.folder.write("keys/one.pub", "# comment\n" + line + "\n");
    CHECK_THROWS_WITH(setup.curve->reload(), Catch::Contains("one.pub:2"));
  }
}

TEST_CASE("a secret key that anybody may read is refused") {
  Setup setup;
  chmod((setup.folder / "secret").c_str(), 0644);
  zmq::context_t context;
  CHECK_THROWS_WITH(CurveServer(setup.io, context, setup.folder / "secret", setup.folder / "keys",
                                [](std::string_view) {}),
                    Catch::Contains("chmod 600"));
}
