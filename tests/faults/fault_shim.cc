// Loaded into a program with LD_PRELOAD: makes system calls on the files of one folder fail, or
// kills the process at one of them, shifts the wall clock, and holds up the resolver. Steered by a
// file, while the program runs.
//
//   EPLBD_FAULT_FOLDER   calls on files in here count: open, write, fsync, rename, unlink, link
//   EPLBD_FAULT_PLAN     a file of words, read at every call; a change begins the count anew
//       N ERRNO          the N-th call fails so; N 0: the process is killed before it
//       0 ERRNO          all calls fail so
//       clock SECONDS    after the others, if any: that much is added to the wall clock
//       stopped SECONDS  so: the wall clock stands there
//       names hang       so: no name of a host is resolved until the plan is another one
//
// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>
#include <string>
#include <string_view>

namespace {

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Without the calls that are counted.
std::string read_plan() {
  static const std::string path = environment("EPLBD_FAULT_PLAN");
  static auto* const real_open = next<int(const char*, int, ...)>("open");
  const int file = real_open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return "";
  char bytes[128] = {};
  const ssize_t got = read(file, bytes, sizeof(bytes) - 1);
  close(file);
  return got > 0 ? std::string(bytes, static_cast<size_t>(got)) : "";
}

// Whether the call on `path` fails; errno is set then.
bool fails(const std::string& path) {
  static const std::string folder = environment("EPLBD_FAULT_FOLDER");
  static std::mutex mutex;
  static std::string plan;
  static long calls = 0;
  if (folder.empty() || path.compare(0, folder.size(), folder) != 0) return false;
  const std::lock_guard lock(mutex);
  const std::string now = read_plan();
  if (now != plan) {
    plan = now;
    calls = 0;
  }
  long which = -1;
  int error = 0;
  if (std::sscanf(plan.c_str(), "%ld %d", &which, &error) != 2) return false;
  if (which != 0 && ++calls != which) return false;
  if (error == 0) raise(SIGKILL);
  errno = error;
  return true;
}

std::string path_of(int file) {
  char link[64];
  char path[4096] = {};
  std::snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
  const ssize_t size = readlink(link, path, sizeof(path) - 1);
  return size > 0 ? path : "";
}

void change_wall_clock(timespec& time) {
  const std::string plan = read_plan();
  const auto seconds = [&](std::string_view word) {
    const size_t at = plan.find(word);
    return at == std::string::npos ? 0 : std::atol(plan.c_str() + at + word.size());
  };
  time.tv_sec += seconds("clock ");
  if (const time_t stands = seconds("stopped "); stands != 0) time = {stands, 0};
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  static auto* const real = next<int(const char*, int, ...)>("open");
  return fails(path) ? -1 : real(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open(path, flags, mode);
}
ssize_t write(int file, const void* bytes, size_t size) {
  static auto* const real = next<ssize_t(int, const void*, size_t)>("write");
  return file > 2 && fails(path_of(file)) ? -1 : real(file, bytes, size);
}
int fsync(int file) {
  static auto* const real = next<int(int)>("fsync");
  return fails(path_of(file)) ? -1 : real(file);
}
int rename(const char* from, const char* to) noexcept {
  static auto* const real = next<int(const char*, const char*)>("rename");
  return fails(from) ? -1 : real(from, to);
}
int unlink(const char* path) noexcept {
  static auto* const real = next<int(const char*)>("unlink");
  return fails(path) ? -1 : real(path);
}
int link(const char* from, const char* to) noexcept {
  static auto* const real = next<int(const char*, const char*)>("link");
  return fails(from) ? -1 : real(from, to);
}
int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static auto* const real = next<int(clockid_t, timespec*)>("clock_gettime");
  const int result = real(clock, time);
  if (clock == CLOCK_REALTIME) change_wall_clock(*time);
  return result;
}
int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** found) {
  static auto* const real =
      next<int(const char*, const char*, const addrinfo*, addrinfo**)>("getaddrinfo");
  while (read_plan().find("names hang") != std::string::npos) usleep(10'000);
  return real(node, service, hints, found);
}

}  // extern "C"
