// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/etcd_connection.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <optional>

namespace eplbd {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using ErrorCode = boost::system::error_code;

namespace {

// Above what a state can be, in base64 (etcd takes 1.5 MiB).
constexpr uint64_t kMostBytes = 8 << 20;

}  // namespace

struct EtcdConnection::Impl {
  using Request = http::request<http::string_body>;
  using Parser = http::response_parser<http::string_body>;

  Impl(EtcdWaiting& waits, const HttpUrl& url)
      : waiting(waits),
        name((url.at.bracketed ? "[" + url.at.host + "]" : url.at.host) + ":" + url.at.port),
        plain(*waits.io) {}

  [[noreturn]] void fail(const char* step, const std::string& why) const {
    throw EtcdError("etcd at " + name + ": " + step + ": " + why);
  }

  // Starts something, and waits until it is done.
  template <typename Start>
  void await(const char* step, TimePoint deadline, Start start) {
    std::optional<ErrorCode> result;
    start([&result](const ErrorCode& error, auto&&...) { result = error; });
    if (!waiting.until(deadline, [&] { return result.has_value(); })) {
      plain.close();
      waiting.io->restart();
      while (!result && waiting.io->run_one() > 0) {
      }
      fail(step, "no answer in time");
    }
    if (*result) fail(step, result->message());
  }

  template <typename Use>
  void with_stream(Use use) {
    if (tls) {
      use(*tls);
    } else {
      use(plain);
    }
  }

  void connect(const HostLookup::Addresses& addresses, TimePoint deadline);
  void shake_hands(asio::ssl::context& context, const EtcdEndpoint& endpoint, TimePoint deadline);
  void read(Parser& parser, TimePoint deadline, const Enough& enough);

  EtcdWaiting& waiting;
  std::string name;
  beast::tcp_stream plain;
  std::optional<beast::ssl_stream<beast::tcp_stream&>> tls;
  beast::flat_buffer buffer;
  bool usable = false;
};

// One address after the other; one that hangs leaves time for the rest.
void EtcdConnection::Impl::connect(const HostLookup::Addresses& addresses, TimePoint deadline) {
  for (size_t left = addresses.size(); left > 0; --left) {
    const TimePoint now = std::chrono::steady_clock::now();
    const auto& address = addresses[addresses.size() - left];
    try {
      await("cannot connect", now + (deadline - now) / static_cast<int>(left),
            [&](auto done) { plain.async_connect(address, done); });
      break;
    } catch (const EtcdError&) {
      if (left == 1) throw;
      plain.close();
    }
  }
  ErrorCode ignored;
  plain.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
}

void EtcdConnection::Impl::shake_hands(asio::ssl::context& context, const EtcdEndpoint& endpoint,
                                       TimePoint deadline) {
  const std::string& host = endpoint.url.at.host;
  tls.emplace(plain, context);
  tls->set_verify_mode(asio::ssl::verify_peer);
  tls->set_verify_callback(asio::ssl::host_name_verification(host));
  if (endpoint.lookup.is_name()) SSL_set_tlsext_host_name(tls->native_handle(), host.c_str());
  await("no TLS", deadline,
        [&](auto done) { tls->async_handshake(asio::ssl::stream_base::client, done); });
}

void EtcdConnection::Impl::read(Parser& parser, TimePoint deadline, const Enough& enough) {
  parser.body_limit(kMostBytes);
  while (!parser.is_done() && !(enough && enough(parser.get().body()))) {
    await("no answer", deadline, [&](auto done) {
      with_stream([&](auto& stream) { http::async_read_some(stream, buffer, parser, done); });
    });
  }
}

EtcdConnection::EtcdConnection(EtcdWaiting& waiting, asio::ssl::context& tls,
                               EtcdEndpoint& endpoint, TimePoint deadline)
    : impl_(std::make_unique<Impl>(waiting, endpoint.url)) {
  impl_->connect(endpoint.lookup.find(waiting, deadline), deadline);
  if (endpoint.url.tls) impl_->shake_hands(tls, endpoint, deadline);
  impl_->usable = true;
}

EtcdConnection::~EtcdConnection() = default;

bool EtcdConnection::usable() const { return impl_->usable; }

EtcdResponse EtcdConnection::post(const std::string& path, const std::string& token,
                                  std::string body, TimePoint deadline, const Enough& enough) {
  Impl& impl = *impl_;
  impl.usable = false;
  Impl::Request request(http::verb::post, path, 11);
  request.set(http::field::host, impl.name);
  request.set(http::field::content_type, "application/json");
  if (!token.empty()) request.set(http::field::authorization, token);
  request.body() = std::move(body);
  request.prepare_payload();
  impl.await("cannot ask", deadline, [&](auto done) {
    impl.with_stream([&](auto& stream) { http::async_write(stream, request, done); });
  });
  Impl::Parser parser;
  impl.read(parser, deadline, enough);
  impl.usable = parser.is_done() && parser.get().keep_alive();
  return {static_cast<int>(parser.get().result_int()), std::move(parser.get().body())};
}

}  // namespace eplbd
