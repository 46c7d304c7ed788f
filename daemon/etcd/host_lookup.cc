// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/host_lookup.h"

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <system_error>
#include <thread>

#include "daemon/etcd/etcd_connection.h"

namespace eplbd {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

namespace {

// What a lookup may take where addresses are known: this, and so much of the time to connect in.
constexpr Duration kPatience = std::chrono::milliseconds(500);
constexpr int kShare = 4;

}  // namespace

struct HostLookup::Running {
  std::optional<ErrorCode> result;
  Addresses found;

  // On a thread of its own; `result` is set on the one that waits.
  static std::shared_ptr<Running> start(EtcdWaiting& waiting, const HostPort& at) try {
    auto running = std::make_shared<Running>();
    std::thread([running, at, io = waiting.io, guard = asio::make_work_guard(*waiting.io)] {
      ErrorCode error;
      const auto answer = tcp::resolver(*io).resolve(at.host, at.port, error);
      asio::post(*io, [running, error, addresses = Addresses(answer.begin(), answer.end())] {
        running->found = addresses;
        running->result = error;
      });
    }).detach();
    return running;
  } catch (const std::system_error& error) {
    throw EtcdError("etcd at " + at.host + ": cannot look it up: " + error.what());
  }
};

HostLookup::HostLookup(HostPort at) : at_(std::move(at)) {
  ErrorCode is_name;
  const auto address = asio::ip::make_address(at_.host, is_name);
  is_name_ = is_name.failed();
  if (!is_name_) last_ = {{address, static_cast<uint16_t>(std::stoi(at_.port))}};
}

HostLookup::Addresses HostLookup::find(EtcdWaiting& waiting, TimePoint deadline) {
  if (!is_name_) return last_;
  if (!running_) running_ = Running::start(waiting, at_);
  const TimePoint now = std::chrono::steady_clock::now();
  const TimePoint until =
      last_.empty() ? deadline : now + std::min((deadline - now) / kShare, kPatience);
  const bool done = waiting.until(until, [this] { return running_->result.has_value(); });
  if (!done) {
    if (last_.empty())
      throw EtcdError("etcd at " + at_.host + ": its name is not resolved in time");
    return last_;
  }
  const std::shared_ptr<Running> ended = std::move(running_);
  if (!*ended->result) return last_ = ended->found;
  if (!last_.empty()) return last_;
  throw EtcdError("etcd at " + at_.host + ": cannot resolve its name: " + ended->result->message());
}

}  // namespace eplbd
