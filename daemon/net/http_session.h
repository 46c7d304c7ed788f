// One connection of an HTTP server: a request at a time. What it waits for always has a deadline.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <array>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "daemon/net/http_server.h"

namespace eplbd {

class HttpSession;

// What the connections of one server have in common.
struct HttpShared {
  HttpShared(HttpHandler request_handler, const HttpLimits& http_limits)
      : handler(std::move(request_handler)), limits(http_limits) {}
  HttpHandler handler;
  HttpLimits limits;
  std::list<std::shared_ptr<HttpSession>> sessions;  // the one that is idle longest first
  bool own_names_only = false;                       // answers to no name that a stranger may own
  bool stopped = false;
};

class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  using Socket = boost::asio::generic::stream_protocol::socket;
  HttpSession(std::shared_ptr<HttpShared> shared, Socket socket);

  void start();
  void close();

 private:
  using ErrorCode = boost::system::error_code;
  using Response = boost::beast::http::response<boost::beast::http::buffer_body>;
  using Request = boost::beast::http::request<boost::beast::http::string_body>;

  void read(std::chrono::milliseconds timeout);
  void on_read(const ErrorCode& error);
  void refuse(int status, std::string why);
  void dispatch(Request message);
  void write(HttpResponse response);
  void fill_in(const HttpResponse& response);
  void on_written(const ErrorCode& error);
  void drop_rest();

  std::shared_ptr<HttpShared> shared_;
  boost::beast::basic_stream<boost::asio::generic::stream_protocol> stream_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  std::unique_ptr<Response> message_;
  std::unique_ptr<boost::beast::http::response_serializer<boost::beast::http::buffer_body>>
      serializer_;
  std::string body_;
  std::string if_none_match_;
  bool gzip_ = false;  // may the answer be
  bool keep_alive_ = false;
  bool head_ = false;
  bool unread_ = false;  // of the request, when it was refused
  std::array<char, 4096> dropped_;
  bool listed_ = false;
  std::list<std::shared_ptr<HttpSession>>::iterator place_;
};

}  // namespace eplbd
