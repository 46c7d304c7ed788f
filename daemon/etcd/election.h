// Which of several daemons leads a deployment: the one that holds the leader's key in etcd, whose
// lease it keeps alive. Its own thread asks etcd; what comes of it is told on the loop.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "config/config.h"
#include "daemon/store/state_store.h"

namespace boost::asio {
class io_context;
}

namespace eplbd {

struct ElectionHandler {
  std::function<void(const Leadership&)> won;
  std::function<void(TimePoint until)> renewed;
  std::function<void(const std::string& why)> lost;
  std::function<void(const std::string& name)> followed;  // another leads; empty: none is known to
  std::function<void()> changed;                          // the other leader saved its state
  std::function<void(const std::string& why)> failed;     // etcd; empty: it answers again
};

class Election {
 public:
  // `name`: what others call this daemon. `handler` is called on the loop, until the loop ends.
  // Throws std::runtime_error naming the file that cannot be used.
  Election(boost::asio::io_context& loop, const HaOptions& options, const std::string& deployment,
           std::string name, ElectionHandler handler);
  ~Election();  // ends the lease, so that a standby need not wait for it
  Election(const Election&) = delete;
  Election& operator=(const Election&) = delete;

  // This one leads no longer, and lets others go first for as long as a lease.
  void resign();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
