// Runs an Asio loop until something is so. A deadline, far away, ends a test that would hang.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/io_context.hpp>
#include <chrono>

namespace eplbd {

template <typename Condition>
bool run_until(boost::asio::io_context& io, Condition condition,
               std::chrono::seconds deadline = std::chrono::seconds(60)) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    io.restart();
    io.run_one_for(std::chrono::milliseconds(20));
  }
  return true;
}

// What else is to come, for so long: to see that something does not happen.
inline void run_for(boost::asio::io_context& io, std::chrono::milliseconds time) {
  io.restart();
  io.run_for(time);
}

}  // namespace eplbd
