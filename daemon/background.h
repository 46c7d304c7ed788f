// A thread of its own for what takes longer than the loop may stand still: an fsync, a search.
// tests/simulation links its own, which has no thread.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

namespace boost::asio {
class io_context;
}

namespace eplbd {

class Background {
 public:
  explicit Background(boost::asio::io_context& io);
  ~Background();  // as finish()
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // `work` runs on the thread, one after the other; then `done` on the loop, which does not end
  // before. Requires: `work` does not throw.
  void run(std::function<void()> work, std::function<void()> done);

  // Waits for what runs. Nothing may be given to it any more.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
