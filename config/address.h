// The addresses of a configuration: ZeroMQ endpoints to bind, HTTP listen addresses.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace eplbd {

struct HostPort {
  std::string host;  // without brackets
  std::string port;
  bool bracketed = false;
};
// HOST:PORT, [HOST]:PORT. Nothing: there is no colon. Neither part is judged.
std::optional<HostPort> split_host_port(std::string_view address);

struct AddressCheck {
  std::optional<std::string> problem;  // "must be ...": it is none
  bool loopback = false;               // reachable from this machine alone
  bool interface = false;              // its host is the name of a network interface
};

// tcp://HOST:PORT (HOST an IP address, * or a network interface; PORT a number, * for any free
// one) or ipc://PATH.
AddressCheck check_zmq_address(std::string_view address);

// HOST:PORT, HOST an IPv4 address or an IPv6 one in brackets; port 0: any free one.
AddressCheck check_http_address(std::string_view address);

struct HttpUrl {
  bool tls = false;
  HostPort at;
};
// http://HOST:PORT or https://HOST:PORT, HOST a name or an address, an IPv6 one in brackets; PORT
// from 1. Nothing: it is none.
std::optional<HttpUrl> split_http_url(std::string_view url);

}  // namespace eplbd
