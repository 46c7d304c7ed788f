// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "core/model/time.h"
#include "eplbctl/status.h"
#include "eplbctl/status_view.h"
#include "eplbctl/stop_signal.h"
#include "eplbctl/terminal.h"

namespace eplbd {
namespace {

// Over what is there, cleared line by line: no flicker.
std::string drawn_over(const std::string& lines) {
  std::string text = "\x1b[H";
  for (const char c : lines) text += c == '\n' ? "\x1b[K\n" : std::string(1, c);
  return text + "\x1b[J";
}

}  // namespace

int run_watch(const StatusOptions& options) {
  const DaemonClient daemon(options.daemon);
  stop_on_signals();
  daemon.get("/api/v1/status");  // a wrong address is an error; a daemon that restarts is not
  const bool terminal = is_terminal(STDOUT_FILENO) && !options.json;
  if (terminal) std::cout << "\x1b[?1049h\x1b[?25l";  // other screen, no cursor
  const Duration every = from_seconds(options.every_seconds);
  do {
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
  } while (wait_until(std::chrono::steady_clock::now() + every));
  if (terminal) std::cout << "\x1b[?25h\x1b[?1049l" << std::flush;
  return 0;
}

}  // namespace eplbd
