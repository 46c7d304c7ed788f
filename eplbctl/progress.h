// How far a long replay is: on standard error, when that is a terminal.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>

#include "eplbctl/terminal.h"

namespace eplbd {

class Progress {
 public:
  Progress(std::string name, int64_t steps) : name_(std::move(name)), steps_(steps) {}
  ~Progress() {
    if (shown_) std::cerr << "\r\x1b[K" << std::flush;
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void done(int64_t step) {
    const auto now = std::chrono::steady_clock::now();
    if (!terminal_ || now < next_) return;
    next_ = now + std::chrono::milliseconds(100);
    const double part = static_cast<double>(step + 1) / static_cast<double>(steps_);
    constexpr int kColumns = 40;
    std::fprintf(stderr, "\r\x1b[K%-12s %s %3.0f%%", name_.c_str(), bar(part, kColumns).c_str(),
                 part * 100);
    shown_ = true;
  }

 private:
  const std::string name_;
  const int64_t steps_;
  const bool terminal_ = is_terminal(STDERR_FILENO);
  bool shown_ = false;
  std::chrono::steady_clock::time_point next_ =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
};

}  // namespace eplbd
