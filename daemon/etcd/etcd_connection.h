// One HTTP connection to a member of etcd, used by one thread that waits for each answer; none
// takes longer than its deadline.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "config/address.h"
#include "core/model/time.h"
#include "daemon/etcd/host_lookup.h"

namespace boost::asio::ssl {
class context;
}

namespace eplbd {

// etcd does not answer, refuses, or answers what makes no sense.
class EtcdError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One endpoint of etcd.
struct EtcdEndpoint {
  explicit EtcdEndpoint(const HttpUrl& at) : url(at), lookup(at.at) {}
  HttpUrl url;
  HostLookup lookup;
};

// What the waiting thread runs while it waits. Lookups that it left behind share it.
struct EtcdWaiting {
  std::shared_ptr<boost::asio::io_context> io = std::make_shared<boost::asio::io_context>();
  std::atomic<bool> interrupted = false;  // by another thread: what waits fails

  // Until `done()`; false: not by the deadline, or interrupted.
  template <typename Done>
  bool until(TimePoint deadline, Done done) {
    io->restart();
    while (!done() && !interrupted && io->run_one_until(deadline) > 0) {
    }
    return done();
  }
};

struct EtcdResponse {
  int status = 0;
  std::string body;
};

class EtcdConnection {
 public:
  // `waiting` outlives it; `tls`: for https://. Throws EtcdError.
  EtcdConnection(EtcdWaiting& waiting, boost::asio::ssl::context& tls, EtcdEndpoint& endpoint,
                 TimePoint deadline);
  ~EtcdConnection();
  EtcdConnection(const EtcdConnection&) = delete;
  EtcdConnection& operator=(const EtcdConnection&) = delete;

  // `enough` sees what came of the body so far, and ends an answer that is never whole; the
  // connection is of no use afterwards, as after an error. Throws EtcdError.
  using Enough = std::function<bool(std::string_view body)>;
  EtcdResponse post(const std::string& path, const std::string& token, std::string body,
                    TimePoint deadline, const Enough& enough = nullptr);
  bool usable() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
