// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/http_server.h"

#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <optional>
#include <stdexcept>

#include "config/address.h"
#include "daemon/net/bind_error.h"
#include "daemon/net/http_session.h"
#include "daemon/net/unix_path.h"

namespace eplbd {

namespace asio = boost::asio;
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
  Impl(asio::io_context& loop, HttpHandler handler, const HttpLimits& limits)
      : io(loop), shared(std::make_shared<HttpShared>(std::move(handler), limits)), retry(loop) {}

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
          std::make_shared<HttpSession>(self->shared, std::move(*socket))->start();
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
  std::shared_ptr<HttpShared> shared;
  std::optional<Tcp::acceptor> tcp;
  std::optional<Unix::acceptor> local;
  std::string path;  // of `local`
  UnixPathId path_id;
  asio::steady_timer retry;
};

HttpServer::HttpServer(asio::io_context& io, HttpHandler handler, const HttpLimits& limits)
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
