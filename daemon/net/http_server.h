// A small HTTP/1.1 server on the daemon's loop: one class for the read-only TCP address and for the
// control socket. Boost.Beast inside.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace boost::asio {
class io_context;
}

namespace eplbd {

struct HttpRequest {
  std::string method;         // GET, POST; a HEAD comes as GET
  std::string path;           // without the query, as sent
  std::string query;          // without the '?'
  std::string if_none_match;  // header, or empty
  std::string body;

  // A parameter of the query, or empty. Values are taken as they stand: ours need no escapes.
  std::string_view parameter(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::string etag;   // with its quotes; a GET that names it in If-None-Match gets 304
  std::string allow;  // of a 405: the methods
};

HttpResponse text_response(int status, std::string text);

using HttpRespond = std::function<void(HttpResponse)>;
// Called on the loop; answers then or later, once. The server outlives no answer: one that comes
// after the client is gone is dropped.
using HttpHandler = std::function<void(HttpRequest, HttpRespond)>;

struct HttpLimits {
  std::chrono::milliseconds timeout{10'000};  // for a request to come in, or an answer to go out
  std::chrono::milliseconds idle_timeout{60'000};  // between requests of one connection
  size_t connections = 128;                        // one more ends the one that is idle longest
  size_t header_bytes = 8 * 1024;
  size_t body_bytes = 1024;
};

class HttpServer {
 public:
  HttpServer(boost::asio::io_context& io, HttpHandler handler, const HttpLimits& limits = {});
  ~HttpServer();  // closes everything
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // HOST:PORT or [::1]:PORT, an IP address; port 0: any. Throws std::runtime_error
  // naming the address. Returns the port.
  uint16_t listen_tcp(const std::string& address);

  // A UNIX socket of mode 0660 and, where that group exists and may be given, of `group`. What a
  // daemon that was killed left there is replaced; throws std::runtime_error when one answers.
  void listen_unix(const std::string& path, const std::string& group);

  void stop();  // no new requests; answers under way are cut off
  size_t connections() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace eplbd
