// What the read-only address answers: docs/http.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "daemon/deployment.h"
#include "daemon/net/http_server.h"
#include "daemon/status_json.h"

namespace eplbd {

class HttpRoutes {
 public:
  // `ready`: the sockets are bound and the state is recovered.
  HttpRoutes(Deployment& deployment, Endpoints endpoints, std::function<bool()> ready);

  HttpResponse handle(const HttpRequest& request);

 private:
  HttpResponse metrics();
  HttpResponse placement(const HttpRequest& request) const;

  Deployment& deployment_;
  const Endpoints endpoints_;
  std::function<bool()> ready_;
};

}  // namespace eplbd
