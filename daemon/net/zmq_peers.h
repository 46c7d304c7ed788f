// The connections of a bound ZeroMQ socket, as its monitor tells, and bounds that libzmq does not
// have: how many there are, and how much one may send without a message coming out of it. A message
// of endless frames, which libzmq would collect in memory, is ended so.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>
#include <zmq.hpp>

namespace boost::asio {
class io_context;
}

namespace eplbd {

struct ZmqPeerLimits {
  size_t connections = 1024;       // one more is ended at once
  size_t pending_bytes = 8 << 20;  // received of one since the last whole message of its
};

class ZmqPeers {
 public:
  // A peer that only connects and leaves (a probe of the port) is disconnected, but did not fail a
  // handshake.
  enum class Event { disconnected, handshake_failed };

  // Before `socket` binds; it outlives this object.
  ZmqPeers(boost::asio::io_context& io, zmq::context_t& zmq_context, zmq::socket_ref socket,
           ZmqPeerLimits limits, std::function<void(Event)> handler);
  ~ZmqPeers();
  ZmqPeers(const ZmqPeers&) = delete;
  ZmqPeers& operator=(const ZmqPeers&) = delete;

  // A whole message came from the connection (zmq_msg_get(3), ZMQ_SRCFD), under that CURVE key.
  void heard(int connection, std::string_view user_id);
  // It subscribed to our topic: when to answer, a few times at once and then once a second.
  std::chrono::steady_clock::time_point next_turn(int connection,
                                                  std::chrono::steady_clock::time_point now);
  // It subscribed to a topic that is not ours; how many times it did.
  int subscribed_elsewhere(int connection);

  // Ends a connection: its peer may connect anew.
  void end(int connection);
  // Ends those whose key is no longer right.
  void end_users_unless(const std::function<bool(std::string_view user_id)>& right);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
