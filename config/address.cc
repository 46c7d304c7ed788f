// SPDX-License-Identifier: Apache-2.0
#include "config/address.h"

#include <arpa/inet.h>
#include <sys/un.h>

#include <algorithm>
#include <cctype>
#include <charconv>

namespace eplbd {
namespace {

bool is_port(const std::string& text, int min) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() && value >= min && value <= 65535;
}

bool is_ipv4(const std::string& host) {
  in_addr address{};
  return inet_pton(AF_INET, host.c_str(), &address) == 1;
}

bool is_ipv6(const std::string& host) {
  in6_addr address{};
  return inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

bool is_loopback(const std::string& host) {
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) != 1) return false;
  if (IN6_IS_ADDR_V4MAPPED(&v6)) return v6.s6_addr[12] == 127;
  return IN6_IS_ADDR_LOOPBACK(&v6);
}

// As the kernel names them (at most 15 bytes), and not what only looks like an address.
bool is_interface(const std::string& host) {
  return !host.empty() && host.size() < 16 && host != "localhost" &&
         host.find_first_of("/: []*,;") == std::string::npos &&
         host.find_first_not_of("0123456789.") != std::string::npos;
}

AddressCheck check_ipc(std::string_view path) {
  // libzmq replaces nothing and truncates nothing: a longer path fails to bind.
  if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path)) {
    return {"must be ipc:// with a path of 1 to 107 bytes"};
  }
  return {{}, true};
}

}  // namespace

std::optional<HostPort> split_host_port(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == address.npos) return {};
  HostPort out{std::string(address.substr(0, colon)), std::string(address.substr(colon + 1))};
  if (out.host.starts_with('[') && out.host.ends_with(']')) {
    out.host = out.host.substr(1, out.host.size() - 2);
    out.bracketed = true;
  }
  return out;
}

AddressCheck check_zmq_address(std::string_view address) {
  if (address.starts_with("ipc://")) return check_ipc(address.substr(6));
  constexpr const char* kExpected = "must be tcp://HOST:PORT or ipc://PATH";
  if (!address.starts_with("tcp://")) return {kExpected};
  const auto at = split_host_port(address.substr(6));
  if (!at) return {kExpected};
  if (at->port != "*" && !is_port(at->port, 0)) {
    return {"must end in a port from 0 to 65535, or * for any free one"};
  }
  if (at->host == "localhost") {
    return {"must name an IP address to bind, as tcp://127.0.0.1:" + at->port};
  }
  if (at->bracketed ? is_ipv6(at->host) : is_ipv4(at->host)) return {{}, is_loopback(at->host)};
  if (is_ipv6(at->host)) return {"must have its IPv6 address in brackets, as tcp://[::1]:15557"};
  if (at->bracketed || (at->host != "*" && !is_interface(at->host))) {
    return {"must name an IP address, * or a network interface to bind, as tcp://127.0.0.1:15557"};
  }
  return {{}, at->host == "lo", at->host != "*"};
}

std::optional<HttpUrl> split_http_url(std::string_view url) {
  HttpUrl out;
  out.tls = url.starts_with("https://");
  if (!out.tls && !url.starts_with("http://")) return {};
  const auto at = split_host_port(url.substr(out.tls ? 8 : 7));
  if (!at || !is_port(at->port, 1)) return {};
  const auto is_of_a_name = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '.'; };
  const bool name = !at->host.empty() && at->host.size() <= 253 &&
                    std::all_of(at->host.begin(), at->host.end(), is_of_a_name);
  if (at->bracketed ? !is_ipv6(at->host) : !name) return {};
  out.at = *at;
  return out;
}

AddressCheck check_http_address(std::string_view address) {
  const auto at = split_host_port(address);
  if (!at || !is_port(at->port, 0)) return {"must be HOST:PORT with a port from 0 to 65535"};
  if (at->bracketed ? is_ipv6(at->host) : is_ipv4(at->host)) return {{}, is_loopback(at->host)};
  if (at->host.empty() || at->host == "*") {
    return {"must name an address; all of them are 0.0.0.0:" + at->port + " or [::]:" + at->port};
  }
  if (is_ipv6(at->host)) return {"must have its IPv6 address in brackets, as [::1]:9877"};
  return {"must name an IP address, as 127.0.0.1:" + at->port};
}

}  // namespace eplbd
