// What both bound ZeroMQ sockets have in common.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace boost::asio {
class io_context;
}

namespace eplbd {

class CurveServer;

// Options of a socket that strangers connect to: a frozen or half-open peer is found and dropped,
// nothing waits at the end. With `curve`, under ZAP domain `domain`.
void set_server_options(void* socket, const CurveServer* curve, const char* domain);

// Binds all of them; returns them as bound. Throws std::runtime_error naming the address.
std::vector<std::string> bind_all(void* socket, const std::vector<std::string>& addresses);

// Connections of a socket that ended, as its monitor tells. A peer that only connects and leaves (a
// probe of the port) ends one, but did not fail a handshake.
class ZmqMonitor {
 public:
  enum class Event { disconnected, handshake_failed };
  ZmqMonitor(boost::asio::io_context& io, void* zmq_context, void* socket,
             std::function<void(Event)> handler);
  ~ZmqMonitor();
  ZmqMonitor(const ZmqMonitor&) = delete;
  ZmqMonitor& operator=(const ZmqMonitor&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
