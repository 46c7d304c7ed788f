// Alone in its file: <linux/tcp.h>, whose tcp_info is the whole one, and <netinet/tcp.h> exclude
// each other.
// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/tcp_received.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>

namespace eplbd {

std::optional<uint64_t> tcp_received(int connection) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (getsockopt(connection, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return std::nullopt;
  constexpr size_t kNeeded = offsetof(tcp_info, tcpi_bytes_received) + sizeof(uint64_t);
  if (size < kNeeded) return std::nullopt;
  return info.tcpi_bytes_received;
}

}  // namespace eplbd
