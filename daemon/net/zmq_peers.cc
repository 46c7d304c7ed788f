// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/zmq_peers.h"

#include <sys/socket.h>
#include <unistd.h>

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/steady_timer.hpp>
#include <cstring>
#include <fstream>
#include <map>
#include <string>

#include "daemon/net/tcp_received.h"
#include "daemon/net/zmq_readable.h"
#include "daemon/net/zmq_socket.h"

namespace eplbd {
namespace {

// What libzmq collects is in our memory. That is looked at often enough that what comes in between
// is little; and all connections, one system call each, as soon as it grew by so much.
constexpr auto kCheckInterval = std::chrono::milliseconds(50);
constexpr size_t kGrownBytes = 4 << 20;
constexpr auto kLongestUnchecked = std::chrono::seconds(1);
constexpr int kTurnsAtOnce = 5;
constexpr auto kTurnInterval = std::chrono::seconds(1);

using Clock = std::chrono::steady_clock;

std::string name_of_peer(int connection) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getpeername(connection, reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
  return {reinterpret_cast<const char*>(&address), size};
}

// Zero: it is not known.
size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  size_t pages[2] = {};
  file >> pages[0] >> pages[1];  // of addresses, and in memory
  return pages[1] * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

struct Peer {
  std::string name;       // as getpeername(2) gave it
  std::string user_id;    // of the CURVE key; empty: none, or nothing heard yet
  uint64_t received = 0;  // bytes, when a message was last known to have come out of it
  bool heard = true;      // one did since then
  int turns_at_once = kTurnsAtOnce;
  Clock::time_point turn{};  // the last after those
  int elsewhere = 0;         // subscriptions to topics that are not ours
};

}  // namespace

struct ZmqPeers::Impl {
  Impl(boost::asio::io_context& io, zmq::context_t& context, zmq::socket_ref socket,
       ZmqPeerLimits peer_limits, std::function<void(Event)> tell)
      : timer(io),
        limits(peer_limits),
        handler(std::move(tell)),
        watched(socket),
        pair(context, zmq::socket_type::pair) {}
  ~Impl() {
    readable.reset();
    zmq_socket_monitor(watched.handle(), nullptr, 0);
  }

  // A monitor event is two frames: 16-bit event and 32-bit value, then the address.
  bool drain() {
    zmq::message_t frame, address;
    while (receive(pair, frame)) {
      receive(pair, address);
      uint16_t event = 0;
      int32_t value = 0;
      std::memcpy(&event, frame.data(), sizeof(event));
      std::memcpy(&value, frame.data<char>() + sizeof(event), sizeof(value));
      if (event == ZMQ_EVENT_ACCEPTED) {
        accepted(value);
      } else if (event == ZMQ_EVENT_DISCONNECTED) {
        peers.erase(value);
        handler(Event::disconnected);
      } else {
        handler(Event::handshake_failed);
      }
    }
    return false;
  }

  void accepted(int connection) {
    const bool one_too_many = peers.size() >= limits.connections;
    peers[connection] = {};
    peers[connection].name = name_of_peer(connection);
    if (one_too_many) end(connection);
    if (!checking) check_later();
  }

  Peer* find(int connection) {
    auto found = peers.find(connection);
    if (found == peers.end() && connection >= 0) {  // its message may be here before its event
      drain();
      found = peers.find(connection);
    }
    return found == peers.end() ? nullptr : &found->second;
  }

  // libzmq owns the descriptor and closes it when it sees the end. Until it told so, the number may
  // have gone to another connection: only the one that we know is shut down.
  void end(int connection) {
    const auto found = peers.find(connection);
    if (found == peers.end() || name_of_peer(connection) != found->second.name) return;
    shutdown(connection, SHUT_RDWR);
  }

  void check_later() {
    checking = true;
    timer.expires_after(kCheckInterval);
    timer.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      checking = false;
      check();
      if (!peers.empty()) check_later();
    });
  }

  void check() {
    const auto now = Clock::now();
    const size_t resident = resident_bytes();
    if (resident < resident_then + kGrownBytes && now - checked < kLongestUnchecked) return;
    checked = now;
    resident_then = resident;
    for (auto& [connection, peer] : peers) check(connection, peer);
  }

  void check(int connection, Peer& peer) {
    const auto received = tcp_received(connection);
    if (!received) return;
    if (std::exchange(peer.heard, false)) peer.received = *received;
    if (*received - peer.received > limits.pending_bytes) end(connection);
  }

  boost::asio::steady_timer timer;
  ZmqPeerLimits limits;
  std::function<void(Event)> handler;
  std::map<int, Peer> peers;  // by descriptor
  bool checking = false;
  Clock::time_point checked{};
  size_t resident_then = 0;
  zmq::socket_ref watched;
  zmq::socket_t pair;
  std::unique_ptr<ZmqReadable> readable;
};

// Not zmq::monitor_t: that one has no socket to wait for on a loop.
ZmqPeers::ZmqPeers(boost::asio::io_context& io, zmq::context_t& zmq_context, zmq::socket_ref socket,
                   ZmqPeerLimits limits, std::function<void(Event)> handler)
    : impl_(std::make_unique<Impl>(io, zmq_context, socket, limits, std::move(handler))) {
  const std::string address =
      "inproc://monitor." + std::to_string(reinterpret_cast<uintptr_t>(socket.handle()));
  const int events = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED |
                     ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
  if (zmq_socket_monitor(socket.handle(), address.c_str(), events) != 0) throw zmq::error_t();
  impl_->pair.set(zmq::sockopt::rcvhwm, 0);  // unbounded: a full queue would stop the I/O thread
  impl_->pair.connect(address);
  impl_->readable =
      std::make_unique<ZmqReadable>(io, impl_->pair, [this] { return impl_->drain(); });
}

ZmqPeers::~ZmqPeers() = default;

void ZmqPeers::heard(int connection, std::string_view user_id) {
  Peer* const peer = impl_->find(connection);
  if (peer == nullptr) return;
  peer->heard = true;
  if (peer->user_id.empty()) peer->user_id = user_id;
}

Clock::time_point ZmqPeers::next_turn(int connection, Clock::time_point now) {
  Peer* const peer = impl_->find(connection);
  if (peer == nullptr) return now;
  if (peer->turns_at_once > 0) {
    --peer->turns_at_once;
    return now;
  }
  if (peer->turn < now) peer->turn = std::max(now, peer->turn + kTurnInterval);
  return peer->turn;  // one that is still to come serves all until then
}

int ZmqPeers::subscribed_elsewhere(int connection) {
  Peer* const peer = impl_->find(connection);
  return peer == nullptr ? 0 : ++peer->elsewhere;
}

void ZmqPeers::end(int connection) { impl_->end(connection); }

void ZmqPeers::end_users_unless(const std::function<bool(std::string_view)>& right) {
  for (const auto& [connection, peer] : impl_->peers) {
    if (!peer.user_id.empty() && !right(peer.user_id)) impl_->end(connection);
  }
}

}  // namespace eplbd
