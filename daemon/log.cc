// SPDX-License-Identifier: Apache-2.0
#include "daemon/log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <poll.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace eplbd {
namespace {

spdlog::level::level_enum level_of(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

// {"ts": ..., "level": ..., "message": ...}
class JsonFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const auto since_epoch = message.time.time_since_epoch();
    const double seconds = std::chrono::duration<double>(since_epoch).count();
    nlohmann::ordered_json line;
    line["ts"] = seconds;
    line["level"] = std::string(spdlog::level::to_string_view(message.level).data());
    line["message"] = std::string(message.payload.data(), message.payload.size());
    const std::string text =
        line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonFormatter>();
  }
};

// "<4>message": journald takes the priority from the front (sd-daemon(3)) and dates it itself.
class JournalFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const int priority = message.level >= spdlog::level::err    ? 3
                         : message.level == spdlog::level::warn ? 4
                         : message.level == spdlog::level::info ? 6
                                                                : 7;
    std::string text = "<" + std::to_string(priority) + ">";
    text.append(message.payload.data(), message.payload.size());
    text += '\n';
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JournalFormatter>();
  }
};

// Writes to stderr, and never waits for who reads it: what does not fit is lost, and its lines are
// counted. Setting O_NONBLOCK on stderr itself would set it for everybody who shares it, so a pipe
// or a terminal is opened once more.
class StderrSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  StderrSink() {
    struct stat file {};
    if (fstat(STDERR_FILENO, &file) != 0) return;
    socket_ = S_ISSOCK(file.st_mode);
    waits_ = S_ISFIFO(file.st_mode) || S_ISCHR(file.st_mode);
    if (waits_) own_ = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  }
  ~StderrSink() override {
    if (own_ >= 0) close(own_);
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    if (lost_ > 0 && tell_lost()) lost_ = 0;
    if (lost_ > 0 || !write_whole({line.data(), line.size()})) ++lost_;
  }
  void flush_() override {}

 private:
  bool tell_lost() {
    const std::string text = std::to_string(lost_) + " lines are missing here: nobody read them";
    spdlog::memory_buf_t line;
    formatter_->format({"eplbd", spdlog::level::warn, text}, line);
    return write_whole({line.data(), line.size()});
  }

  bool write_whole(std::string_view line) const {
    while (!line.empty()) {
      const ssize_t n = write_some(line);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      line.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  ssize_t write_some(std::string_view line) const {
    if (socket_) {
      return send(STDERR_FILENO, line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (own_ >= 0) return write(own_, line.data(), line.size());
    // Not ours to open again. A pipe that polls as writable takes PIPE_BUF bytes at once.
    pollfd room{STDERR_FILENO, POLLOUT, 0};
    if (waits_ && poll(&room, 1, 0) <= 0) return -1;
    return write(STDERR_FILENO, line.data(), std::min<size_t>(line.size(), PIPE_BUF));
  }

  bool socket_ = false;
  bool waits_ = false;
  int own_ = -1;
  uint64_t lost_ = 0;  // lines, since the last that was written
};

// Whether stderr is the journal: $JOURNAL_STREAM is DEVICE:INODE of it (systemd.exec(5)).
bool to_journal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat file {};
  if (stream == nullptr || fstat(STDERR_FILENO, &file) != 0) return false;
  return std::to_string(file.st_dev) + ":" + std::to_string(file.st_ino) == stream;
}

}  // namespace

void set_up_logging(const LogOptions& options) {
  auto sink = std::make_shared<StderrSink>();
  auto logger = std::make_shared<spdlog::logger>("eplbd", sink);
  if (options.format == LogFormat::json) {
    logger->set_formatter(std::make_unique<JsonFormatter>());
  } else if (to_journal()) {
    logger->set_formatter(std::make_unique<JournalFormatter>());
  } else {
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l: %v");
  }
  logger->set_level(level_of(options.level));
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(logger);
}

bool logs(LogLevel level) { return spdlog::default_logger_raw()->should_log(level_of(level)); }

void log(LogLevel level, std::string_view message) {
  // Of several lines each is an entry, with a time and a priority of its own.
  for (size_t begin = 0; begin <= message.size();) {
    const size_t end = std::min(message.find('\n', begin), message.size());
    spdlog::default_logger_raw()->log(level_of(level), message.substr(begin, end - begin));
    begin = end + 1;
  }
}

std::optional<std::string> LogLimit::admit(std::chrono::steady_clock::time_point now) {
  if (!began_ || now - *began_ >= interval_) {
    began_ = now;
    logged_ = 0;
  }
  if (logged_ == lines_) {
    ++left_out_;
    return std::nullopt;
  }
  ++logged_;
  const uint64_t left_out = std::exchange(left_out_, 0);
  return left_out > 0 ? fmt::format(" ({} more since the last such line)", left_out) : "";
}

}  // namespace eplbd
