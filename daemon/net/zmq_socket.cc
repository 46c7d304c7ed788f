// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/zmq_socket.h"

#include <zmq.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "daemon/net/bind_error.h"
#include "daemon/net/curve_server.h"
#include "daemon/net/zmq_readable.h"

namespace eplbd {
namespace {

void set_int(void* socket, int option, int value) {
  if (zmq_setsockopt(socket, option, &value, sizeof(value)) != 0) {
    throw std::runtime_error(std::string("ZeroMQ option: ") + zmq_strerror(zmq_errno()));
  }
}

}  // namespace

void set_server_options(void* socket, const CurveServer* curve, const char* domain) {
  set_int(socket, ZMQ_LINGER, 0);
  set_int(socket, ZMQ_HANDSHAKE_IVL, 5000);
  set_int(socket, ZMQ_HEARTBEAT_IVL, 1000);
  set_int(socket, ZMQ_HEARTBEAT_TIMEOUT, 5000);
  set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
  set_int(socket, ZMQ_BACKLOG, 4096);
  if (curve != nullptr) curve->secure(socket, domain);
}

std::vector<std::string> bind_all(void* socket, const std::vector<std::string>& addresses) {
  std::vector<std::string> bound;
  for (const std::string& address : addresses) {
    // Only where it is asked for: else 127.0.0.1 would be shown as ::ffff:127.0.0.1.
    set_int(socket, ZMQ_IPV6, address.find('[') != std::string::npos ? 1 : 0);
    if (zmq_bind(socket, address.c_str()) != 0) {
      throw std::runtime_error(bind_error(address, zmq_errno()));
    }
    char endpoint[256] = {};
    size_t size = sizeof(endpoint);
    zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &size);
    bound.emplace_back(endpoint);
  }
  return bound;
}

struct ZmqMonitor::Impl {
  ~Impl() {
    readable.reset();
    if (watched != nullptr) zmq_socket_monitor(watched, nullptr, 0);
    if (pair != nullptr) zmq_close(pair);
  }

  // A monitor event is two frames: 16-bit event and 32-bit value, then the address.
  bool drain() {
    for (;;) {
      unsigned char frame[6] = {};
      const int size = zmq_recv(pair, frame, sizeof(frame), ZMQ_DONTWAIT);
      if (size < 0) return false;
      uint16_t event = 0;
      std::memcpy(&event, frame, sizeof(event));
      char address[1];
      zmq_recv(pair, address, sizeof(address), ZMQ_DONTWAIT);
      handler(event == ZMQ_EVENT_DISCONNECTED ? Event::disconnected : Event::handshake_failed);
    }
  }

  std::function<void(Event)> handler;
  void* watched = nullptr;
  void* pair = nullptr;
  std::unique_ptr<ZmqReadable> readable;
};

ZmqMonitor::ZmqMonitor(boost::asio::io_context& io, void* zmq_context, void* socket,
                       std::function<void(Event)> handler)
    : impl_(std::make_unique<Impl>()) {
  impl_->handler = std::move(handler);
  const std::string address =
      "inproc://monitor." + std::to_string(reinterpret_cast<uintptr_t>(socket));
  const int events = ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                     ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
  if (zmq_socket_monitor(socket, address.c_str(), events) != 0) {
    throw std::runtime_error(std::string("ZeroMQ monitor: ") + zmq_strerror(zmq_errno()));
  }
  impl_->watched = socket;
  impl_->pair = zmq_socket(zmq_context, ZMQ_PAIR);
  if (impl_->pair == nullptr || zmq_connect(impl_->pair, address.c_str()) != 0) {
    throw std::runtime_error(std::string("ZeroMQ monitor: ") + zmq_strerror(zmq_errno()));
  }
  impl_->readable =
      std::make_unique<ZmqReadable>(io, impl_->pair, [this] { return impl_->drain(); });
}

ZmqMonitor::~ZmqMonitor() = default;

}  // namespace eplbd
