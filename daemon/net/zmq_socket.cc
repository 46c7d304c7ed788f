// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/zmq_socket.h"

#include <zmq.h>

#include <cstdint>
#include <stdexcept>

#include "daemon/net/bind_error.h"
#include "daemon/net/curve_server.h"
#include "daemon/net/unix_path.h"

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
    // libzmq would remove whatever is there. After an @ stands a name that is no file's.
    const bool file = address.starts_with("ipc://") && address[6] != '@' && address[6] != '*';
    if (file) claim_unix_path(address.substr(6));
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

}  // namespace eplbd
