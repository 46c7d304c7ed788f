// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/unix_path.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "daemon/net/bind_error.h"

namespace eplbd {
namespace {

// Whether somebody accepts connections there. One whose queue is full does too.
bool answers(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (probe < 0) throw std::runtime_error(bind_error(path, errno));
  const bool connected =
      connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
      errno == EAGAIN;
  close(probe);
  return connected;
}

}  // namespace

void claim_unix_path(const std::string& path) {
  struct stat file {};
  if (lstat(path.c_str(), &file) != 0) {
    if (errno == ENOENT) return;
    throw std::runtime_error(bind_error(path, errno));
  }
  if (!S_ISSOCK(file.st_mode)) {
    throw std::runtime_error("cannot listen on " + path +
                             ": there is a file of another kind, which stays; name another path");
  }
  if (answers(path)) throw std::runtime_error(bind_error(path, EADDRINUSE));
  if (unlink(path.c_str()) != 0) throw std::runtime_error(bind_error(path, errno));
}

UnixPathId unix_path_id(const std::string& path) {
  struct stat file {};
  if (lstat(path.c_str(), &file) != 0) return {};
  return {file.st_dev, file.st_ino};
}

}  // namespace eplbd
