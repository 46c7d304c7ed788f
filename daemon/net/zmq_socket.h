// What both bound ZeroMQ sockets have in common.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace eplbd {

class CurveServer;

// Options of a socket that strangers connect to: a frozen or half-open peer is found and dropped,
// nothing waits at the end. With `curve`, under ZAP domain `domain`.
void set_server_options(void* socket, const CurveServer* curve, const char* domain);

// Binds all of them; returns them as bound. Throws std::runtime_error naming the address.
std::vector<std::string> bind_all(void* socket, const std::vector<std::string>& addresses);

}  // namespace eplbd
