// "This ZeroMQ socket may have something to read", told on an Asio loop. All rules about ZMQ_FD are
// in here: it is edge-triggered and only says that something may have changed (zmq_getsockopt(3)).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <zmq.hpp>

namespace boost::asio {
class io_context;
}

namespace eplbd {

class ZmqReadable {
 public:
  // `drain` receives without blocking until the socket is empty and returns false, or returns true
  // when it stopped short (its budget): it is then called again after other work of the loop.
  // `socket` must outlive this object.
  ZmqReadable(boost::asio::io_context& io, zmq::socket_ref socket, std::function<bool()> drain);
  ~ZmqReadable();
  ZmqReadable(const ZmqReadable&) = delete;
  ZmqReadable& operator=(const ZmqReadable&) = delete;

  // To be called after anything else was done to the socket, a send above all: that may consume the
  // edge which would have woken the loop.
  void recheck();

  // To be called in a drain: no other one for so long, whatever comes.
  void rest(std::chrono::nanoseconds duration);

  // No drain from pause() to resume(): what comes waits in the socket.
  void pause();
  void resume();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace eplbd
