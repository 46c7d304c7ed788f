// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/http_client.h"

#include <limits>
#include <stdexcept>
#include <utility>

// <utility> first: Boost 1.74's Asio needs it under C++20.
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "config/address.h"
#include "daemon/words.h"

namespace eplbd {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Error = boost::system::error_code;

// Connect, write, read, one after the other, all within the timeout of the stream.
template <typename Protocol>
class Request {
 public:
  explicit Request(const HttpCall& call) : stream_(io_), timeout_(call.timeout) {
    request_.method(call.body.empty() ? http::verb::get : http::verb::post);
    request_.target(call.path);
    request_.version(11);
    request_.set(http::field::host, "localhost");
    request_.set(http::field::connection, "close");
    if (!call.body.empty()) request_.set(http::field::content_type, "application/json");
    request_.body() = call.body;
    request_.prepare_payload();
    parser_.body_limit(std::numeric_limits<uint64_t>::max());
  }

  HttpAnswer run(const typename Protocol::endpoint& endpoint) {
    stream_.expires_after(timeout_);
    stream_.async_connect(endpoint, [this](Error error) {
      if (finish(error)) return;
      http::async_write(stream_, request_, [this](Error failed, size_t) {
        if (finish(failed)) return;
        http::async_read(stream_, buffer_, parser_, [this](Error end, size_t) { finish(end); });
      });
    });
    io_.run();
    if (error_) throw boost::system::system_error(error_);
    const beast::string_view etag = parser_.get()[http::field::etag];
    return {
        parser_.get().result_int(), {etag.data(), etag.size()}, std::move(parser_.get().body())};
  }

 private:
  bool finish(Error error) {
    error_ = error;
    return static_cast<bool>(error);
  }

  asio::io_context io_;
  beast::basic_stream<Protocol> stream_;
  std::chrono::milliseconds timeout_;
  beast::flat_buffer buffer_;
  http::request<http::string_body> request_;
  http::response_parser<http::string_body> parser_;
  Error error_;
};

asio::ip::tcp::endpoint resolve(const std::string& address) {
  const auto at = split_host_port(address);
  if (!at) throw std::runtime_error("HOST:PORT expected");
  asio::io_context io;
  return asio::ip::tcp::resolver(io).resolve(at->host, at->port)->endpoint();
}

// Of the system's errors the system's words; what Beast says is about its own insides.
std::string words_of(const Error& error, std::chrono::milliseconds timeout) {
  if (error == beast::error::timeout) {
    return "no answer within " + duration_words(std::chrono::duration<double>(timeout).count());
  }
  if (error == http::error::end_of_stream || error == http::error::partial_message ||
      error == asio::error::eof) {
    return "it ended the connection";
  }
  const bool ours = error.category() == boost::system::system_category() ||
                    error.category() == asio::error::get_netdb_category();
  return ours ? error.message() : "what answers there speaks no HTTP";
}

}  // namespace

HttpAnswer http_request(const HttpCall& call) {
  try {
    if (call.address.find('/') != std::string::npos) {
      using Local = asio::local::stream_protocol;
      return Request<Local>(call).run(Local::endpoint(call.address));
    }
    return Request<asio::ip::tcp>(call).run(resolve(call.address));
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error(call.address + ": " + words_of(error.code(), call.timeout));
  } catch (const std::exception& error) {
    throw std::runtime_error(call.address + ": " + error.what());
  }
}

}  // namespace eplbd
