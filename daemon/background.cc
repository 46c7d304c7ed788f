// SPDX-License-Identifier: Apache-2.0
#include "daemon/background.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

namespace eplbd {

namespace asio = boost::asio;

struct Background::Impl {
  explicit Impl(asio::io_context& loop) : io(loop) {}
  asio::io_context& io;
  asio::thread_pool pool{1};
};

Background::Background(asio::io_context& io) : impl_(std::make_unique<Impl>(io)) {}

Background::~Background() { finish(); }

void Background::finish() { impl_->pool.join(); }

void Background::run(std::function<void()> work, std::function<void()> done) {
  auto guard = asio::make_work_guard(impl_->io);  // the loop does not end before the answer
  asio::post(impl_->pool, [&io = impl_->io, work = std::move(work), done = std::move(done),
                           guard = std::move(guard)]() mutable {
    work();
    asio::post(io, std::move(done));
  });
}

}  // namespace eplbd
