// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

namespace eplbd {

// Bytes that a TCP connection has received in its life (tcp(7), TCP_INFO); nothing: it is none.
std::optional<uint64_t> tcp_received(int connection);

}  // namespace eplbd
