// SPDX-License-Identifier: Apache-2.0
#include "daemon/etcd/etcd_credentials.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/ssl/context.hpp>
#include <stdexcept>

#include "config/file.h"
#include "core/model/utf8.h"

namespace eplbd {
namespace {

namespace asio = boost::asio;

constexpr size_t kMostFileBytes = 1 << 20;

std::string read_named(const char* key, const std::string& path, Readable by) {
  try {
    return read_regular_file(path, kMostFileBytes, by);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(std::string(key) + ": cannot use " + path + ": " + error.what());
  }
}

}  // namespace

std::string read_password(const HaOptions& options) {
  if (options.password.empty()) return {};
  std::string password = read_named("ha.password", options.password, Readable::not_by_anybody);
  while (password.ends_with('\n') || password.ends_with('\r')) password.pop_back();
  if (!is_printable_utf8(password)) {
    throw std::runtime_error("ha.password: " + options.password + " holds no line of UTF-8");
  }
  return password;
}

std::unique_ptr<asio::ssl::context> read_certificates(const HaOptions& options) {
  auto tls = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_client);
  const auto use = [](const char* key, const std::string& path, Readable by, auto how) {
    if (path.empty()) return;
    const std::string text = read_named(key, path, by);
    try {
      how(asio::buffer(text));
    } catch (const boost::system::system_error& error) {
      throw std::runtime_error(std::string(key) + ": cannot use " + path + ": " + error.what());
    }
  };
  if (options.ca.empty()) tls->set_default_verify_paths();
  use("ha.ca", options.ca, Readable::by_anybody,
      [&](auto text) { tls->add_certificate_authority(text); });
  use("ha.certificate", options.certificate, Readable::by_anybody,
      [&](auto text) { tls->use_certificate_chain(text); });
  use("ha.key", options.key, Readable::not_by_anybody,
      [&](auto text) { tls->use_private_key(text, asio::ssl::context::pem); });
  return tls;
}

}  // namespace eplbd
