// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/zmq_socket.h"

#include <stdexcept>

#include "daemon/net/bind_error.h"
#include "daemon/net/curve_server.h"
#include "daemon/net/unix_path.h"

namespace eplbd {
void set_server_options(zmq::socket_ref socket, const CurveServer* curve, const char* domain) {
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::handshake_ivl, 5000);
  socket.set(zmq::sockopt::heartbeat_ivl, 1000);
  socket.set(zmq::sockopt::heartbeat_timeout, 5000);
  socket.set(zmq::sockopt::tcp_keepalive, 1);
  socket.set(zmq::sockopt::backlog, 4096);
  if (curve != nullptr) curve->secure(socket, domain);
}

std::vector<std::string> bind_all(zmq::socket_ref socket,
                                  const std::vector<std::string>& addresses) {
  std::vector<std::string> bound;
  for (const std::string& address : addresses) {
    // libzmq would remove whatever is there. After an @ stands a name that is no file's.
    const bool file = address.starts_with("ipc://") && address[6] != '@' && address[6] != '*';
    if (file) claim_unix_path(address.substr(6));
    // Only where it is asked for: else 127.0.0.1 would be shown as ::ffff:127.0.0.1.
    socket.set(zmq::sockopt::ipv6, address.find('[') != std::string::npos);
    try {
      socket.bind(address);
    } catch (const zmq::error_t& error) {
      throw std::runtime_error(bind_error(address, error.num()));
    }
    bound.push_back(socket.get(zmq::sockopt::last_endpoint));
  }
  return bound;
}

bool receive(zmq::socket_ref socket, zmq::message_t& frame) {
  return zmq_msg_recv(frame.handle(), socket.handle(), ZMQ_DONTWAIT) >= 0;
}

std::string_view property(const zmq::message_t& frame, const char* name) {
  const char* const value =
      zmq_msg_gets(frame.handle(), name);  // gets() throws where there is none
  return value == nullptr ? "" : value;
}

}  // namespace eplbd
