// SPDX-License-Identifier: Apache-2.0
#include "daemon/net/http_server.h"

#include <sys/stat.h>

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <catch2/catch.hpp>
#include <thread>

#include "tests/daemon/folder.h"
#include "tests/daemon/net/http_peer.h"

using namespace eplbd;

namespace {

const std::string kLarge(8 << 20, 'x');  // more than socket buffers hold

HttpResponse reply(const HttpRequest& request) {
  HttpResponse response;
  if (request.path == "/large") {
    response.body = kLarge;
  } else if (request.path == "/tagged") {
    response.body = "content";
    response.etag = "\"1.2\"";
  } else {
    response.body = request.method + " " + request.path + " " + request.query + " " + request.body;
  }
  return response;
}

// A server on a loop of its own.
struct Served {
  explicit Served(HttpLimits limits = {})
      : server(
            io, [](HttpRequest request, const HttpRespond& respond) { respond(reply(request)); },
            limits) {
    port = server.listen_tcp("127.0.0.1:0");
    thread = std::thread([this] { io.run(); });
  }
  ~Served() {
    boost::asio::post(io, [this] {
      server.stop();
      work.reset();
    });
    thread.join();
  }

  boost::asio::io_context io;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work =
      boost::asio::make_work_guard(io);
  HttpServer server;
  uint16_t port = 0;
  std::thread thread;
};

}  // namespace

TEST_CASE("A large answer is packed for who takes it so", "[daemon]") {
  Served served;
  const auto packed = [&](const std::string& path, const std::string& fields) {
    HttpPeer peer(served.port);
    const HttpAnswer answer = peer.get(path, fields);
    REQUIRE(answer.status == 200);
    const bool is = answer.head.find("Content-Encoding: gzip\r\n") != std::string::npos;
    CHECK(is == answer.body.starts_with("\x1f\x8b"));
    if (is) CHECK(answer.body.size() < kLarge.size() / 100);
    return is;
  };
  CHECK(packed("/large", "Accept-Encoding: deflate, GZIP ; q=0.5, br\r\n"));
  CHECK_FALSE(packed("/large", "Accept-Encoding: deflate, gzip;q=0\r\n"));
  CHECK_FALSE(packed("/large", "Accept-Encoding: xgzip\r\n"));
  CHECK_FALSE(packed("/large", ""));
  CHECK_FALSE(packed("/small", "Accept-Encoding: gzip\r\n"));
}

TEST_CASE("requests of one connection are answered in turn") {
  const Served served;
  HttpPeer peer(served.port);
  CHECK(peer.get("/a?b=c").body == "GET /a b=c ");
  const HttpAnswer second = peer.post("/b", "body");
  CHECK(second.status == 200);
  CHECK(second.body == "POST /b  body");
  CHECK(peer.get("/large").body == kLarge);
  peer.send("GET /c HTTP/1.1\r\nHost: x\r\n\r\nGET /d HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(peer.answer().body == "GET /c  ");
  CHECK(peer.answer().body == "GET /d  ");
}

TEST_CASE("a HEAD has the header of its GET and no body") {
  const Served served;
  HttpPeer peer(served.port);
  peer.send("HEAD /abc HTTP/1.1\r\nHost: x\r\n\r\n");
  const HttpAnswer head = peer.answer(/*with_body=*/false);
  CHECK(head.status == 200);
  CHECK_THAT(head.head, Catch::Contains("Content-Length: 10"));
  CHECK(peer.get("/abc").body == "GET /abc  ");  // and nothing was left over
}

TEST_CASE("what the client has is not sent again") {
  const Served served;
  HttpPeer peer(served.port);
  const HttpAnswer first = peer.get("/tagged");
  CHECK(first.body == "content");
  CHECK_THAT(first.head, Catch::Contains("ETag: \"1.2\""));
  const HttpAnswer second = peer.get("/tagged", "If-None-Match: \"1.2\"\r\n");
  CHECK(second.status == 304);
  CHECK(second.body.empty());
  CHECK(peer.get("/tagged", "If-None-Match: \"1.1\"\r\n").status == 200);
}

TEST_CASE("a client that asks for it is hung up on") {
  const Served served;
  HttpPeer peer(served.port);
  CHECK(peer.get("/a", "Connection: close\r\n").status == 200);
  CHECK(peer.ended());
}

TEST_CASE("what is too large, or no HTTP, is refused") {
  const Served served;
  HttpPeer large_header(served.port);
  CHECK(large_header.get("/a", "X: " + std::string(9000, 'x') + "\r\n").status == 431);
  CHECK(large_header.ended());
  HttpPeer large_body(served.port);
  CHECK(large_body.post("/a", std::string(2000, 'x')).status == 413);
  HttpPeer no_http(served.port);
  no_http.send("hello\r\n\r\n");
  CHECK(no_http.answer().status == 400);
  CHECK(no_http.ended());
}

TEST_CASE("a client that takes its time harms nobody") {
  HttpLimits limits;
  limits.timeout = std::chrono::milliseconds(300);
  limits.idle_timeout = std::chrono::milliseconds(300);
  const Served served(limits);
  HttpPeer silent(served.port);
  HttpPeer half(served.port);
  half.send("GET /a HT");
  HttpPeer never_reads(served.port);
  never_reads.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
  HttpPeer good(served.port);
  CHECK(good.get("/b").body == "GET /b  ");  // while the others wait
  CHECK(silent.ended());
  CHECK(half.ended());
  HttpPeer later(served.port);
  CHECK(later.get("/c").status == 200);
}

TEST_CASE("the connection that is idle longest makes room for a new one") {
  HttpLimits limits;
  limits.connections = 3;
  const Served served(limits);
  HttpPeer first(served.port);
  CHECK(first.get("/a").status == 200);
  HttpPeer second(served.port);
  CHECK(second.get("/b").status == 200);
  CHECK(first.get("/a").status == 200);  // now the second is idle longest
  HttpPeer third(served.port);
  CHECK(third.get("/c").status == 200);
  HttpPeer fourth(served.port);
  CHECK(fourth.get("/d").status == 200);
  CHECK(second.ended());
  CHECK(first.get("/a").status == 200);
}

TEST_CASE("the control socket is its owner's and its group's") {
  const Folder folder;
  const std::string path = folder / "control.sock";
  boost::asio::io_context io;
  {
    HttpServer server(io, [](HttpRequest, const HttpRespond&) {});
    server.listen_unix(path, "no such group");
    struct stat status {};
    REQUIRE(stat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0660);
    HttpServer other(io, [](HttpRequest, const HttpRespond&) {});
    CHECK_THROWS_WITH(other.listen_unix(path, ""), Catch::Contains("another process has it"));
  }
  CHECK_FALSE(folder.has("control.sock"));
  {  // what a daemon that was killed left there
    boost::asio::local::stream_protocol::acceptor left(io, path);
  }
  REQUIRE(folder.has("control.sock"));
  HttpServer server(io, [](HttpRequest, const HttpRespond&) {});
  server.listen_unix(path, "");
}

TEST_CASE("a file that is no socket is left alone, and so is another one's socket") {
  const Folder folder;
  folder.write("precious", "content");
  const std::string path = folder / "control.sock";
  boost::asio::io_context io;
  HttpServer server(io, [](HttpRequest, const HttpRespond&) {});
  CHECK_THROWS_WITH(server.listen_unix(folder / "precious", ""), Catch::Contains("stays"));
  CHECK(folder.read("precious") == "content");
  std::filesystem::create_symlink(folder / "precious", folder / "link");
  CHECK_THROWS_WITH(server.listen_unix(folder / "link", ""), Catch::Contains("stays"));
  server.listen_unix(path, "");
  std::filesystem::remove(path);
  folder.write("control.sock", "somebody else's");
  server.stop();
  CHECK(folder.read("control.sock") == "somebody else's");
}

TEST_CASE("a name that a stranger may own is not answered on a loopback address") {
  Served served;
  const auto status = [&](const std::string& host) {
    HttpPeer peer(served.port);
    peer.send("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n");
    return peer.answer().status;
  };
  for (const char* host : {"localhost", "LOCALHOST:80", "127.0.0.1:9877", "[::1]:80", "[::1]",
                           "gpu-node:9877", "0.0.0.0:80"}) {
    CHECK(status(host) == 200);
  }
  for (const char* host : {"evil.example", "evil.example:9877", "127.0.0.1.evil.example",
                           "localhost.evil.example:80", "192.0.2.7:80", "a.b", "[2001:db8::1]"}) {
    CHECK(status(host) == 421);
  }
}

TEST_CASE("an address that cannot be had is named") {
  boost::asio::io_context io;
  for (const char* address : {"nowhere", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000",
                              "no.such.name.example:80", "127.0.0.1:-1"}) {
    HttpServer server(io, [](HttpRequest, const HttpRespond&) {});
    CHECK_THROWS_WITH(server.listen_tcp(address), Catch::Contains(address));
  }
}

TEST_CASE("a parameter is found in a query") {
  HttpRequest request;
  request.query = "a=1&format=npy&b";
  CHECK(request.parameter("format") == "npy");
  CHECK(request.parameter("a") == "1");
  CHECK(request.parameter("b").empty());
  CHECK(request.parameter("form").empty());
}
