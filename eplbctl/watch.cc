// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "core/model/time.h"
#include "eplbctl/errors.h"
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

// The whole terminal, without a cursor, and keys as they are pressed; as it was when this ends.
class FullScreen {
 public:
  FullScreen() : keys_(::tcgetattr(STDIN_FILENO, &before_) == 0) {
    std::cout << "\x1b[?1049h\x1b[?25l";
    if (!keys_) return;
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  ~FullScreen() {
    if (keys_) ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    std::cout << "\x1b[?25h\x1b[?1049l" << std::flush;
  }
  FullScreen(const FullScreen&) = delete;
  FullScreen& operator=(const FullScreen&) = delete;

  // False: a signal or the key q came before it was `time`.
  bool wait_until(std::chrono::steady_clock::time_point time) const {
    if (!keys_) return eplbd::wait_until(time);
    while (stop_requested == 0) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(time - std::chrono::steady_clock::now());
      if (left.count() <= 0) return true;
      pollfd input{STDIN_FILENO, POLLIN, 0};
      if (::poll(&input, 1, static_cast<int>(left.count())) <= 0) continue;  // also a signal
      char key = 0;
      if (::read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q') return false;
    }
    return false;
  }

 private:
  termios before_{};
  bool keys_;
};

}  // namespace

int run_watch(const StatusOptions& options) {
  const DaemonClient daemon(options.daemon);
  stop_on_signals();
  daemon.get("/api/v1/status");  // a wrong address is an error; a daemon that restarts is not
  const bool terminal = is_terminal(STDOUT_FILENO) && !options.json;
  std::optional<FullScreen> screen;
  if (terminal) screen.emplace();
  const auto wait = [&](auto time) { return screen ? screen->wait_until(time) : wait_until(time); };
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
      if (!terminal) std::cerr << "eplbctl: watch: " << words_of(error) << '\n';
      text = terminal ? words_of(error) + "\n" : "";
    }
    std::cout << (terminal ? drawn_over(text) : text) << std::flush;
  } while (wait(std::chrono::steady_clock::now() + every));
  return 0;
}

}  // namespace eplbd
