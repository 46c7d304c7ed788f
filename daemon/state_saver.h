// Saves the state on a thread of its own, as an fsync takes milliseconds, and tells the loop.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/rebalancer.h"

namespace boost::asio {
class io_context;
}

namespace eplbd {

class StateFile;

class StateSaver {
 public:
  // `file` outlives it.
  StateSaver(boost::asio::io_context& io, const StateFile& file);
  ~StateSaver();  // waits for what it writes
  StateSaver(const StateSaver&) = delete;
  StateSaver& operator=(const StateSaver&) = delete;

  // `done` runs on the loop: with why it failed, or an empty string. One after the other.
  void save(RebalancerState state, std::function<void(std::string)> done);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
