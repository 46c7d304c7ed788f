// SPDX-License-Identifier: Apache-2.0
#include "daemon/http_routes.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <optional>
#include <stdexcept>

#include "daemon/clock.h"
#include "daemon/formats/placement_format.h"
#include "daemon/page/page.h"

namespace eplbd {
namespace {

std::string content_type_of(PlacementFormat format) {
  switch (format) {
    case PlacementFormat::json:
    case PlacementFormat::vllm_ascend:
      return "application/json";
    case PlacementFormat::trtllm:
      return "application/yaml";
    case PlacementFormat::npy:
      break;
  }
  return "application/octet-stream";
}

std::optional<double> number_of(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && std::isfinite(value) ? std::optional(value) : std::nullopt;
}

}  // namespace

HttpRoutes::HttpRoutes(Deployment& deployment, Endpoints endpoints, std::function<bool()> ready)
    : deployment_(deployment), endpoints_(std::move(endpoints)), ready_(std::move(ready)) {}

HttpResponse HttpRoutes::metrics() {
  deployment_.metrics().refresh(deployment_.snapshot(read_clock()));
  HttpResponse response;
  response.content_type = kMetricsContentType;
  response.body = deployment_.metrics().text();
  return response;
}

HttpResponse HttpRoutes::placement(const HttpRequest& request) const {
  const Topology& topology = deployment_.rebalancer().topology();
  const PlacementUpdate& update = deployment_.named();
  const std::string_view name = request.parameter("format");
  HttpResponse response;
  if (name.empty()) {
    response.body = placement_json(deployment_.name(), topology, update);
  } else if (const auto format = from_name<PlacementFormat>(name)) {
    response.content_type = content_type_of(*format);
    try {
      response.body = format_placement(topology, update.placement, *format);
    } catch (const std::runtime_error& error) {
      return text_response(409, std::string(error.what()) + "\n");
    }
  } else {
    return text_response(
        400, fmt::format("no format {}: {}\n", name, fmt::join(names(PlacementFormat{}), ", ")));
  }
  response.etag = fmt::format("\"{}\"", to_text(update.id));
  return response;
}

HttpResponse HttpRoutes::handle(const HttpRequest& request) {
  const std::string& path = request.path;
  const bool known = path == "/" || path == "/metrics" || path == "/healthz" || path == "/readyz" ||
                     path == "/api/v1/status" || path == "/api/v1/placement" ||
                     path == "/api/v1/history";
  if (!known) return text_response(404, "no such page: see docs/http.md\n");
  if (request.method != "GET") {
    HttpResponse response = text_response(405, "GET and HEAD only\n");
    response.allow = "GET, HEAD";
    return response;
  }
  if (path == "/metrics") return metrics();
  if (path == "/healthz") return text_response(200, "ok\n");
  if (path == "/readyz") {
    std::string text = ready_() ? "ready\n" : "not ready\n";
    for (const Problem& problem : deployment_.problems(read_clock())) text += problem.text + "\n";
    return text_response(ready_() ? 200 : 503, std::move(text));
  }
  if (path == "/api/v1/placement") return placement(request);
  HttpResponse response;
  if (path == "/api/v1/status") {
    const std::string_view text = request.parameter("since");
    const std::optional<double> since = number_of(text);
    if (!text.empty() && !since) return text_response(400, "since: a time in Unix seconds\n");
    response.body = status_json(deployment_, endpoints_, since, read_clock());
  } else if (path == "/api/v1/history") {
    response.body = versions_json(deployment_);
  } else {
    response.content_type = "text/html; charset=utf-8";
    response.body = live_page();
  }
  return response;
}

}  // namespace eplbd
