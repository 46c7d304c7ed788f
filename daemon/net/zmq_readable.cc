// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/zmq_readable.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

namespace eplbd {

namespace asio = boost::asio;

struct ZmqReadable::Impl : std::enable_shared_from_this<Impl> {
  Impl(asio::io_context& loop, zmq::socket_ref zmq_socket, std::function<bool()> drain_function)
      : io(loop),
        socket(zmq_socket),
        drain(std::move(drain_function)),
        descriptor(loop),
        rested(loop) {}

  // The only state in which we may wait for an edge is an empty socket; so begin, and go on after
  // a budget ran out, with a posted drain.
  void post_drain() {
    if (posted || closed) return;
    posted = true;
    asio::post(io, [self = shared_from_this()] {
      self->posted = false;
      self->run();
    });
  }

  void run() {
    if (closed || paused || resting) return;
    if (drain()) {
      post_drain();
    } else if (!resting) {
      wait();
    }
  }

  void rest(std::chrono::nanoseconds duration) {
    resting = true;
    rested.expires_after(duration);
    rested.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      self->resting = false;
      if (!error) self->post_drain();
    });
  }

  void wait() {
    if (waiting || closed) return;
    waiting = true;
    descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                          [self = shared_from_this()](const boost::system::error_code& error) {
                            self->waiting = false;
                            if (!error) self->run();  // often enough there is nothing to read
                          });
    // An edge between the drain's last receive and the wait would be lost. A signal may interrupt
    // the question, which cppzmq would throw for.
    int events = 0;
    size_t size = sizeof(events);
    if (zmq_getsockopt(socket.handle(), ZMQ_EVENTS, &events, &size) == 0 &&
        (events & ZMQ_POLLIN) != 0) {
      post_drain();
    }
  }

  asio::io_context& io;
  zmq::socket_ref socket;
  std::function<bool()> drain;
  asio::posix::stream_descriptor descriptor;
  asio::steady_timer rested;
  bool posted = false;
  bool waiting = false;
  bool paused = false;
  bool resting = false;
  bool closed = false;
};

ZmqReadable::ZmqReadable(asio::io_context& io, zmq::socket_ref socket, std::function<bool()> drain)
    : impl_(std::make_shared<Impl>(io, socket, std::move(drain))) {
  impl_->descriptor.assign(socket.get(zmq::sockopt::fd));
  impl_->post_drain();
}

ZmqReadable::~ZmqReadable() {
  impl_->closed = true;
  impl_->drain = nullptr;
  impl_->descriptor.release();  // libzmq owns it, and aborts when somebody else closed it
}

void ZmqReadable::recheck() { impl_->post_drain(); }

void ZmqReadable::rest(std::chrono::nanoseconds duration) { impl_->rest(duration); }

void ZmqReadable::pause() { impl_->paused = true; }

void ZmqReadable::resume() {
  impl_->paused = false;
  impl_->post_drain();
}

}  // namespace eplbd
