// SPDX-License-Identifier: Apache-2.0
#include "config/address.h"

#include <catch2/catch.hpp>

namespace eplbd {
namespace {

TEST_CASE("ZeroMQ addresses: those that bind, and which are loopback", "[config]") {
  for (const char* address :
       {"tcp://127.0.0.1:15557", "tcp://127.0.0.1:*", "tcp://127.0.0.1:0", "tcp://127.255.0.9:1",
        "tcp://[::1]:65535", "tcp://lo:1", "tcp://[::ffff:127.0.0.1]:1", "ipc:///run/counts",
        "ipc://@abstract"}) {
    INFO(address);
    CHECK_FALSE(check_zmq_address(address).problem);
    CHECK(check_zmq_address(address).loopback);
  }
  for (const char* address :
       {"tcp://*:1", "tcp://0.0.0.0:1", "tcp://[::]:1", "tcp://eth0:1", "tcp://192.168.0.1:1",
        "tcp://128.0.0.1:1", "tcp://[fe80::1]:1", "tcp://[::ffff:10.0.0.1]:1"}) {
    INFO(address);
    CHECK_FALSE(check_zmq_address(address).problem);
    CHECK_FALSE(check_zmq_address(address).loopback);
  }
  for (const char* address :
       {"", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:", "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:70000", "tcp://127.0.0.1:1x", "127.0.0.1:1", "inproc://x", "udp://*:1",
        "tcp://localhost:1", "tcp://::1:1", "tcp://[::1:1", "tcp://1.2.3:1", "tcp://a b:1",
        "tcp://host.example.org:1", "ipc://"}) {
    INFO(address);
    CHECK(check_zmq_address(address).problem);
  }
  CHECK_FALSE(check_zmq_address("ipc://" + std::string(107, 'x')).problem);
  CHECK(check_zmq_address("ipc://" + std::string(108, 'x')).problem);
}

TEST_CASE("a host that is no address is an interface, hexadecimal or not", "[config]") {
  for (const char* address : {"tcp://eth0:1", "tcp://fe0:1", "tcp://lo:*"}) {
    INFO(address);
    CHECK(check_zmq_address(address).interface);
  }
  for (const char* address : {"tcp://127.0.0.1:1", "tcp://[fe80::1]:1", "tcp://*:1", "ipc:///x"}) {
    INFO(address);
    CHECK_FALSE(check_zmq_address(address).interface);
  }
}

TEST_CASE("HTTP addresses are an IP address and a port", "[config]") {
  CHECK(check_http_address("127.0.0.1:9877").loopback);
  CHECK(check_http_address("[::1]:0").loopback);
  for (const char* address : {"0.0.0.0:80", "[::]:80", "10.1.2.3:9877"}) {
    INFO(address);
    CHECK_FALSE(check_http_address(address).problem);
    CHECK_FALSE(check_http_address(address).loopback);
  }
  for (const char* address :
       {"", "9877", ":9877", "*:9877", "localhost:9877", "::1:9877", "[127.0.0.1]:1",
        "127.0.0.1:", "127.0.0.1:65536", "[::1]", "http://127.0.0.1:9877"}) {
    INFO(address);
    CHECK(check_http_address(address).problem);
  }
}

}  // namespace
}  // namespace eplbd
