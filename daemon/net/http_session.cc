// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/http_session.h"

#include <boost/asio/ip/address.hpp>

#include "daemon/net/gzip.h"

namespace eplbd {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

namespace {

constexpr size_t kLeastPacked = 4096;  // below, a packet or three, it is not worth it

// HOST or HOST:PORT, which HTTP/1.0 may leave out. A stranger's name has a dot: what has none is of
// this machine or its network.
bool is_own_name(beast::string_view field) {
  std::string host(field.data(), field.size());
  if (const size_t colon = host.rfind(':'); colon != host.npos && host.back() != ']') {
    host.resize(colon);
  }
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  if (host.find_first_of(".:") == host.npos) return true;
  boost::system::error_code error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  return !error && (address.is_loopback() || address.is_unspecified());
}

bool names(std::string_view if_none_match, std::string_view etag) {
  return !etag.empty() &&
         (if_none_match == "*" || if_none_match.find(etag) != std::string_view::npos);
}

}  // namespace

HttpSession::HttpSession(std::shared_ptr<HttpShared> shared, Socket socket)
    : shared_(std::move(shared)), stream_(std::move(socket)) {}

void HttpSession::start() {
  place_ = shared_->sessions.insert(shared_->sessions.end(), shared_from_this());
  listed_ = true;
  read(shared_->limits.timeout);
}

void HttpSession::close() {
  if (listed_) {
    listed_ = false;
    shared_->sessions.erase(place_);  // keeps `this` alive through the caller's pointer
  }
  ErrorCode ignored;
  stream_.socket().shutdown(Socket::shutdown_both, ignored);
  stream_.close();
}

void HttpSession::read(std::chrono::milliseconds timeout) {
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(shared_->limits.header_bytes));
  parser_->body_limit(shared_->limits.body_bytes);
  stream_.expires_after(timeout);
  http::async_read(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](const ErrorCode& error, size_t) { self->on_read(error); });
}

void HttpSession::on_read(const ErrorCode& error) {
  if (shared_->stopped || !listed_) return;
  if (error == http::error::body_limit) return refuse(413, "the body is too large\n");
  if (error == http::error::header_limit) return refuse(431, "the header is too large\n");
  const bool gone = error == http::error::end_of_stream || error == http::error::partial_message;
  const bool not_http = error.category() == beast::error_code(http::error::bad_method).category();
  if (error && not_http && !gone) return refuse(400, "that is not HTTP/1.1\n");
  if (error) return close();
  // Busiest last: what is idle longest makes room for newcomers.
  shared_->sessions.splice(shared_->sessions.end(), shared_->sessions, place_);
  dispatch(parser_->release());
}

void HttpSession::refuse(int status, std::string why) {
  keep_alive_ = false;
  unread_ = true;
  write(text_response(status, std::move(why)));
}

void HttpSession::dispatch(Request message) {
  keep_alive_ = message.keep_alive();
  head_ = message.method() == http::verb::head;
  const beast::string_view encodings = message[http::field::accept_encoding];
  gzip_ = accepts_gzip({encodings.data(), encodings.size()});
  const std::string_view target(message.target().data(), message.target().size());
  const size_t question = target.find('?');
  if (shared_->own_names_only && !is_own_name(message[http::field::host])) {
    return refuse(421, "on this address it answers to localhost and 127.0.0.1 alone\n");
  }
  HttpRequest request;
  request.method = head_ ? "GET" : std::string(message.method_string());
  request.path = target.substr(0, question);
  if (question != std::string_view::npos) request.query = target.substr(question + 1);
  request.if_none_match = std::string(message[http::field::if_none_match]);
  request.body = std::move(message.body());
  if_none_match_ = request.if_none_match;
  stream_.expires_never();
  shared_->handler(std::move(request), [weak = weak_from_this()](HttpResponse response) {
    const auto self = weak.lock();
    if (self && self->listed_ && !self->shared_->stopped) self->write(std::move(response));
  });
}

void HttpSession::write(HttpResponse response) {
  if (response.status == 200 && names(if_none_match_, response.etag)) {
    response.status = 304;
    response.body.clear();
  }
  gzip_ = gzip_ && response.status == 200 && response.body.size() >= kLeastPacked;
  body_ = gzip_ ? gzip(response.body) : std::move(response.body);
  fill_in(response);
  serializer_ = std::make_unique<http::response_serializer<http::buffer_body>>(*message_);
  serializer_->split(head_);  // of a HEAD the header alone
  stream_.expires_after(shared_->limits.timeout);
  const auto done = [self = shared_from_this()](const ErrorCode& error, size_t) {
    self->on_written(error);
  };
  if (head_) {
    http::async_write_header(stream_, *serializer_, done);
  } else {
    http::async_write(stream_, *serializer_, done);
  }
}

void HttpSession::fill_in(const HttpResponse& response) {
  message_ = std::make_unique<Response>();
  Response& message = *message_;
  message.result(static_cast<unsigned>(response.status));
  message.set(http::field::server, "eplbd");
  message.set(http::field::cache_control, "no-cache");
  message.set("X-Content-Type-Options", "nosniff");
  if (response.status != 304) message.set(http::field::content_type, response.content_type);
  if (gzip_) message.set(http::field::content_encoding, "gzip");
  message.set(http::field::vary, "Accept-Encoding");
  if (!response.etag.empty()) message.set(http::field::etag, response.etag);
  if (!response.allow.empty()) message.set(http::field::allow, response.allow);
  message.keep_alive(keep_alive_);
  if (response.status != 304) message.content_length(body_.size());
  const bool with_body = !head_ && !body_.empty();
  message.body().data = with_body ? body_.data() : nullptr;
  message.body().size = with_body ? body_.size() : 0;
  message.body().more = false;
}

void HttpSession::on_written(const ErrorCode& error) {
  if (!listed_) return;
  if (!error && unread_ && !shared_->stopped) return drop_rest();
  if (error || !keep_alive_ || shared_->stopped) return close();
  body_ = {};
  if_none_match_.clear();
  head_ = gzip_ = false;
  read(shared_->limits.idle_timeout);
}

// Closed with something unread, the connection would be reset, and the answer lost on its way.
void HttpSession::drop_rest() {
  ErrorCode ignored;
  stream_.socket().shutdown(Socket::shutdown_send, ignored);
  stream_.async_read_some(asio::buffer(dropped_),
                          [self = shared_from_this()](const ErrorCode& error, size_t) {
                            if (!self->listed_) return;
                            if (error) return self->close();
                            self->drop_rest();
                          });
}

}  // namespace eplbd
