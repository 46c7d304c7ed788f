// One HTTP connection to a member of etcd, used by one thread that waits for each answer; none
// takes longer than its deadline.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include "config/address.h"
#include "core/model/time.h"

namespace boost::asio {
class io_context;
namespace ssl {
class context;
}
}  // namespace boost::asio

namespace eplbd {

// etcd does not answer, refuses, or answers what makes no sense.
class EtcdError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What the waiting thread runs while it waits.
struct EtcdWaiting {
  boost::asio::io_context& io;
  std::atomic<bool> interrupted = false;  // by another thread: what waits fails
};

struct EtcdResponse {
  int status = 0;
  std::string body;
};

class EtcdConnection {
 public:
  // `waiting` outlives it; `tls`: null for http://. Throws EtcdError.
  EtcdConnection(EtcdWaiting& waiting, boost::asio::ssl::context* tls, const HttpUrl& url,
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
