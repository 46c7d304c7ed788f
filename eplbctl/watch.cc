// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <csignal>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>

#include "eplbctl/status.h"
#include "eplbctl/status_view.h"
#include "eplbctl/terminal.h"

namespace eplbd {
namespace {

volatile std::sig_atomic_t stop_requested = 0;
void request_stop(int) { stop_requested = 1; }

// Over what is there, cleared line by line: no flicker.
std::string drawn_over(const std::string& lines) {
  std::string text = "\x1b[H";
  for (const char c : lines) text += c == '\n' ? "\x1b[K\n" : std::string(1, c);
  return text + "\x1b[J";
}

// A signal ends it early.
void wait_for(double seconds) {
  timespec time{};
  time.tv_sec = static_cast<time_t>(seconds);
  time.tv_nsec = static_cast<long>((seconds - static_cast<double>(time.tv_sec)) * 1e9);
  ::nanosleep(&time, nullptr);
}

}  // namespace

int run_watch(const StatusOptions& options) {
  const DaemonClient daemon(options.daemon);
  std::signal(SIGINT, request_stop);
  std::signal(SIGTERM, request_stop);
  daemon.get("/api/v1/status");  // a wrong address is an error; a daemon that restarts is not
  const bool terminal = is_terminal(STDOUT_FILENO) && !options.json;
  if (terminal) std::cout << "\x1b[?1049h\x1b[?25l";  // other screen, no cursor
  while (stop_requested == 0) {
    std::string text;
    try {
      const nlohmann::json status = daemon.get("/api/v1/status");
      text = options.json ? status.dump() + "\n"
             : terminal
                 ? watch_text(status, terminal_columns(STDOUT_FILENO), terminal_rows(STDOUT_FILENO))
                 : status_text(status) + "\n";
    } catch (const std::exception& error) {
      if (!terminal) std::cerr << "eplbctl: watch: " << error.what() << '\n';
      text = terminal ? std::string(error.what()) + "\n" : "";
    }
    std::cout << (terminal ? drawn_over(text) : text) << std::flush;
    wait_for(options.every_seconds);
  }
  if (terminal) std::cout << "\x1b[?25h\x1b[?1049l" << std::flush;
  return 0;
}

}  // namespace eplbd
