// What both bound ZeroMQ sockets have in common.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>
#include <zmq.hpp>

namespace eplbd {

class CurveServer;

// Options of a socket that strangers connect to: a frozen or half-open peer is found and dropped,
// nothing waits at the end. With `curve`, under ZAP domain `domain`.
void set_server_options(zmq::socket_ref socket, const CurveServer* curve, const char* domain);

// Binds all of them; returns them as bound. Throws std::runtime_error naming the address.
std::vector<std::string> bind_all(zmq::socket_ref socket,
                                  const std::vector<std::string>& addresses);

// The next frame that is there, into `frame`. cppzmq's own recv() throws where a signal interrupts
// it: here there is just nothing to read yet.
bool receive(zmq::socket_ref socket, zmq::message_t& frame);

// What libzmq knows of the frame's sender ("User-Id", "Peer-Address"); empty: nothing.
std::string_view property(const zmq::message_t& frame, const char* name);

}  // namespace eplbd
