// libFuzzer: what a client of the HTTP server sends. It is answered or hung up on, and the server
// goes on.
// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <string>

#include "daemon/net/http_server.h"
#include "tests/daemon/folder.h"
#include "tests/daemon/net/http_peer.h"

namespace {

using namespace eplbd;

struct Server {
  Server()
      : server(io, [](const HttpRequest& request, const HttpRespond& respond) {
          HttpResponse response;
          response.body = request.method + request.path + request.body;
          response.etag = "\"1.2\"";
          response.status = request.parameter("a") == "1" ? 404 : 200;
          respond(response);
        }) {
    server.listen_unix(folder / "socket", "");
  }
  const Folder folder;
  boost::asio::io_context io;
  HttpServer server;
};

void run(Server& server) {
  server.io.restart();
  while (server.io.poll() > 0) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Server server;
  HttpPeer peer(server.folder / "socket");
  const std::string bytes(reinterpret_cast<const char*>(data), std::min<size_t>(size, 16384));
  run(server);
  peer.send(bytes);
  peer.finish();
  run(server);
  run(server);
  if (server.server.connections() > 1) __builtin_trap();
  return 0;
}
