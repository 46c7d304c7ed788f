// One HTTP/1.1 request to a running daemon: over its control socket (UNIX) or its HTTP address.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>

namespace eplbd {

struct HttpAnswer {
  unsigned status = 0;
  std::string etag;
  std::string body;
};

struct HttpCall {
  std::string address;  // a path (with a slash): a UNIX socket; else HOST:PORT
  std::string path;     // /api/v1/status
  std::string body;     // empty: GET, else POST of this JSON
  std::chrono::milliseconds timeout{10000};
};

// Throws std::runtime_error: ADDRESS: why there is no answer.
HttpAnswer http_request(const HttpCall& call);

}  // namespace eplbd
