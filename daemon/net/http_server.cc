// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/http_server.h"

#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <array>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <list>
#include <optional>
#include <stdexcept>

#include "config/address.h"
#include "daemon/net/bind_error.h"
#include "daemon/net/unix_path.h"

namespace eplbd {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Generic = asio::generic::stream_protocol;
using Tcp = asio::ip::tcp;
using Unix = asio::local::stream_protocol;
using ErrorCode = boost::system::error_code;

std::string_view HttpRequest::parameter(std::string_view name) const {
  std::string_view rest = query;
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    const size_t equals = pair.find('=');
    if (pair.substr(0, equals) != name) continue;
    return equals == std::string_view::npos ? std::string_view{} : pair.substr(equals + 1);
  }
  return {};
}

HttpResponse text_response(int status, std::string text) {
  HttpResponse response;
  response.status = status;
  response.content_type = "text/plain; charset=utf-8";
  response.body = std::move(text);
  return response;
}

namespace {

class Session;
using Sessions = std::list<std::shared_ptr<Session>>;  // the one that is idle longest first

struct Shared {
  Shared(HttpHandler request_handler, HttpLimits http_limits)
      : handler(std::move(request_handler)), limits(http_limits) {}
  HttpHandler handler;
  HttpLimits limits;
  Sessions sessions;
  bool own_names_only = false;  // answers to no name that a stranger may own
  bool stopped = false;
};

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
  ErrorCode error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  return !error && (address.is_loopback() || address.is_unspecified());
}

// One connection: a request at a time. What it waits for always has a deadline.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<Shared> shared, Generic::socket socket)
      : shared_(std::move(shared)), stream_(std::move(socket)) {}

  void start() {
    place_ = shared_->sessions.insert(shared_->sessions.end(), shared_from_this());
    listed_ = true;
    read(shared_->limits.timeout);
  }

  void close() {
    if (listed_) {
      listed_ = false;
      shared_->sessions.erase(place_);  // keeps `this` alive through the caller's pointer
    }
    ErrorCode ignored;
    stream_.socket().shutdown(Generic::socket::shutdown_both, ignored);
    stream_.close();
  }

 private:
  void read(std::chrono::milliseconds timeout) {
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(shared_->limits.header_bytes));
    parser_->body_limit(shared_->limits.body_bytes);
    stream_.expires_after(timeout);
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](const beast::error_code& error, size_t) {
                       self->on_read(error);
                     });
  }

  void on_read(const beast::error_code& error) {
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

  void refuse(int status, std::string why) {
    keep_alive_ = false;
    unread_ = true;
    write(text_response(status, std::move(why)));
  }

  void dispatch(http::request<http::string_body> message) {
    keep_alive_ = message.keep_alive();
    head_ = message.method() == http::verb::head;
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

  static bool names(std::string_view if_none_match, std::string_view etag) {
    return !etag.empty() &&
           (if_none_match == "*" || if_none_match.find(etag) != std::string_view::npos);
  }

  void write(HttpResponse response) {
    if (response.status == 200 && names(if_none_match_, response.etag)) {
      response.status = 304;
      response.body.clear();
    }
    body_ = std::move(response.body);
    message_ = std::make_unique<http::response<http::buffer_body>>();
    http::response<http::buffer_body>& message = *message_;
    message.result(static_cast<unsigned>(response.status));
    message.set(http::field::server, "eplbd");
    message.set(http::field::cache_control, "no-cache");
    message.set("X-Content-Type-Options", "nosniff");
    if (response.status != 304) message.set(http::field::content_type, response.content_type);
    if (!response.etag.empty()) message.set(http::field::etag, response.etag);
    if (!response.allow.empty()) message.set(http::field::allow, response.allow);
    message.keep_alive(keep_alive_);
    if (response.status != 304) message.content_length(body_.size());
    const bool with_body = !head_ && !body_.empty();
    message.body().data = with_body ? body_.data() : nullptr;
    message.body().size = with_body ? body_.size() : 0;
    message.body().more = false;
    serializer_ = std::make_unique<http::response_serializer<http::buffer_body>>(message);
    serializer_->split(head_);  // of a HEAD the header alone
    stream_.expires_after(shared_->limits.timeout);
    const auto done = [self = shared_from_this()](const beast::error_code& error, size_t) {
      self->on_written(error);
    };
    if (head_) {
      http::async_write_header(stream_, *serializer_, done);
    } else {
      http::async_write(stream_, *serializer_, done);
    }
  }

  void on_written(const beast::error_code& error) {
    if (!listed_) return;
    if (!error && unread_ && !shared_->stopped) return drop_rest();
    if (error || !keep_alive_ || shared_->stopped) return close();
    body_ = {};
    if_none_match_.clear();
    head_ = false;
    read(shared_->limits.idle_timeout);
  }

  // Closed with something unread, the connection would be reset, and the answer lost on its way.
  void drop_rest() {
    ErrorCode ignored;
    stream_.socket().shutdown(Generic::socket::shutdown_send, ignored);
    stream_.async_read_some(asio::buffer(dropped_),
                            [self = shared_from_this()](const beast::error_code& error, size_t) {
                              if (!self->listed_) return;
                              if (error) return self->close();
                              self->drop_rest();
                            });
  }

  std::shared_ptr<Shared> shared_;
  beast::basic_stream<Generic> stream_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  std::unique_ptr<http::response<http::buffer_body>> message_;
  std::unique_ptr<http::response_serializer<http::buffer_body>> serializer_;
  std::string body_;
  std::string if_none_match_;
  bool keep_alive_ = false;
  bool head_ = false;
  bool unread_ = false;  // of the request, when it was refused
  std::array<char, 4096> dropped_;
  bool listed_ = false;
  Sessions::iterator place_;
};

Tcp::endpoint parse_endpoint(const std::string& address) {
  const AddressCheck check = check_http_address(address);
  if (check.problem) throw std::runtime_error(*check.problem);
  const HostPort at = *split_host_port(address);
  return {asio::ip::make_address(at.host), static_cast<uint16_t>(std::stoi(at.port))};
}

// Permissions of the socket: its owner and, where that can be given, the group.
void restrict_access(const std::string& path, const std::string& group) {
  if (const struct group* found = getgrnam(group.c_str()); found != nullptr) {
    // Only a member of the group, or root, may give it away: else it stays the process's own.
    if (chown(path.c_str(), static_cast<uid_t>(-1), found->gr_gid) != 0) errno = 0;
  }
  if (chmod(path.c_str(), 0660) != 0) {
    throw std::runtime_error("cannot set the mode of " + path);
  }
}

}  // namespace

struct HttpServer::Impl : std::enable_shared_from_this<Impl> {
  Impl(asio::io_context& loop, HttpHandler handler, HttpLimits limits)
      : io(loop), shared(std::make_shared<Shared>(std::move(handler), limits)), retry(loop) {}

  template <typename Acceptor>
  void accept(Acceptor& acceptor) {
    auto socket = std::make_shared<Generic::socket>(io);
    acceptor.async_accept(
        *socket, [self = shared_from_this(), &acceptor, socket](const ErrorCode& error) {
          if (self->shared->stopped || error == asio::error::operation_aborted) return;
          if (error) return self->accept_later(acceptor);
          while (self->shared->sessions.size() >= self->shared->limits.connections) {
            const auto idle_longest = self->shared->sessions.front();
            idle_longest->close();
          }
          std::make_shared<Session>(self->shared, std::move(*socket))->start();
          self->accept(acceptor);
        });
  }

  // Out of descriptors, as a rule: the listener stays readable, so do not spin.
  template <typename Acceptor>
  void accept_later(Acceptor& acceptor) {
    retry.expires_after(std::chrono::milliseconds(100));
    retry.async_wait([self = shared_from_this(), &acceptor](const ErrorCode& error) {
      if (!error && !self->shared->stopped) self->accept(acceptor);
    });
  }

  void stop() {
    shared->stopped = true;
    ErrorCode ignored;
    if (tcp) tcp->close(ignored);
    if (local) {
      local->close(ignored);
      if (unix_path_id(path) == path_id) unlink(path.c_str());  // not another process's
    }
    local.reset();
    tcp.reset();
    retry.cancel();
    while (!shared->sessions.empty()) {
      const auto session = shared->sessions.front();
      session->close();
    }
  }

  asio::io_context& io;
  std::shared_ptr<Shared> shared;
  std::optional<Tcp::acceptor> tcp;
  std::optional<Unix::acceptor> local;
  std::string path;  // of `local`
  UnixPathId path_id;
  asio::steady_timer retry;
};

HttpServer::HttpServer(asio::io_context& io, HttpHandler handler, HttpLimits limits)
    : impl_(std::make_shared<Impl>(io, std::move(handler), limits)) {}

HttpServer::~HttpServer() { impl_->stop(); }

uint16_t HttpServer::listen_tcp(const std::string& address) {
  try {
    const Tcp::endpoint endpoint = parse_endpoint(address);
    impl_->tcp.emplace(impl_->io, endpoint, /*reuse_addr=*/true);
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error(bind_error(address, error.code().value()));
  } catch (const std::exception& error) {
    throw std::runtime_error("cannot listen on " + address + ": " + error.what());
  }
  // A page of a browser on this machine reaches us under any name that its owner lets mean this
  // address. Elsewhere we may rightly have any name.
  impl_->shared->own_names_only = impl_->tcp->local_endpoint().address().is_loopback();
  impl_->accept(*impl_->tcp);
  return impl_->tcp->local_endpoint().port();
}

void HttpServer::listen_unix(const std::string& path, const std::string& group) {
  try {
    claim_unix_path(path);
    ErrorCode error;
    const mode_t before = umask(0177);
    impl_->local.emplace(impl_->io);
    impl_->local->open(Unix());
    impl_->local->bind(Unix::endpoint(path), error);
    umask(before);
    if (error) throw boost::system::system_error(error);
    impl_->path = path;
    impl_->path_id = unix_path_id(path);
    restrict_access(path, group);
    impl_->local->listen();
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error(bind_error(path, error.code().value()));
  }
  impl_->accept(*impl_->local);
}

void HttpServer::stop() { impl_->stop(); }

size_t HttpServer::connections() const { return impl_->shared->sessions.size(); }

}  // namespace eplbd
