// SPDX-License-Identifier: Apache-2.0
#include "daemon/state_saver.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <exception>

#include "daemon/state_file.h"

namespace eplbd {

namespace asio = boost::asio;

struct StateSaver::Impl {
  Impl(asio::io_context& loop, const StateFile& state_file) : io(loop), file(state_file) {}
  asio::io_context& io;
  const StateFile& file;
  asio::thread_pool pool{1};
};

StateSaver::StateSaver(asio::io_context& io, const StateFile& file)
    : impl_(std::make_unique<Impl>(io, file)) {}

StateSaver::~StateSaver() { impl_->pool.join(); }

void StateSaver::save(RebalancerState state, std::function<void(std::string)> done) {
  auto work = asio::make_work_guard(impl_->io);  // the loop does not end before the answer
  asio::post(impl_->pool, [impl = impl_.get(), state = std::move(state), done = std::move(done),
                           work = std::move(work)]() mutable {
    std::string failure;
    try {
      impl->file.save(state);
    } catch (const std::exception& error) {
      failure = error.what();
    }
    asio::post(impl->io, [done = std::move(done), failure = std::move(failure)] { done(failure); });
  });
}

}  // namespace eplbd
