// A blocking HTTP client of a few lines, on bare sockets: the other side of the server's tests.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace eplbd {

struct HttpAnswer {
  int status = 0;
  std::string head;
  std::string body;
};

class HttpPeer {
 public:
  explicit HttpPeer(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    open(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  explicit HttpPeer(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    open(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  ~HttpPeer() { close(fd_); }
  HttpPeer(const HttpPeer&) = delete;
  HttpPeer& operator=(const HttpPeer&) = delete;

  void send(const std::string& text) const {
    if (::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) < 0) throw std::runtime_error("send");
  }

  void finish() const { shutdown(fd_, SHUT_WR); }  // nothing more comes from us

  // Up to `bytes` more; fewer at the end of the connection.
  std::string read(size_t bytes) {
    std::string text(bytes, '\0');
    size_t got = 0;
    while (got < bytes) {
      const ssize_t n = recv(fd_, text.data() + got, bytes - got, 0);
      if (n < 0 && errno == EINTR) continue;  // the process was stopped and goes on: signal(7)
      if (n <= 0) break;
      got += static_cast<size_t>(n);
    }
    text.resize(got);
    return text;
  }
  bool ended() { return read(1).empty(); }

  HttpAnswer answer(bool with_body = true) {
    HttpAnswer result;
    while (result.head.find("\r\n\r\n") == std::string::npos) {
      const std::string byte = read(1);
      if (byte.empty()) return result;
      result.head += byte;
    }
    result.status = std::stoi(result.head.substr(9, 3));
    const size_t length = result.head.find("Content-Length: ");
    if (with_body && length != std::string::npos) {
      result.body = read(std::stoul(result.head.substr(length + 16)));
    }
    return result;
  }

  HttpAnswer get(const std::string& path, const std::string& fields = "") {
    send("GET " + path + " HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n");
    return answer();
  }
  HttpAnswer post(const std::string& path, const std::string& body) {
    send("POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body);
    return answer();
  }

 private:
  void open(const sockaddr* address, socklen_t size) const {
    const timeval limit{.tv_sec = 20, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(fd_, address, size) != 0) throw std::runtime_error(std::strerror(errno));
  }

  int fd_;
};

}  // namespace eplbd
