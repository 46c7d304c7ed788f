// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/orders.h"

#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "eplbctl/status.h"
#include "eplbctl/text.h"

namespace eplbd {
namespace {

using nlohmann::json;

// Of a rebalance, rollback or import: what would be, or was published.
std::string placement_words(const json& answer, bool dry_run) {
  std::string text = std::string(dry_run ? "would publish version " : "version ") +
                     std::to_string(answer.at("version").get<uint64_t>()) + ", " +
                     grouped(answer.at("moves").get<int64_t>()) + " moves (at most " +
                     grouped(answer.at("worst_gpu_moves").get<int64_t>()) + " to a GPU) in " +
                     std::to_string(answer.at("layers_changed").get<int64_t>()) + " layers";
  const double before = answer.value("imbalance_before", 0.0);
  const double after = answer.value("imbalance_after", 0.0);
  if (before > 0) text += format(", imbalance {:.3f} -> {:.3f}", before, after);
  return text;
}

}  // namespace

int run_order(const OrderOptions& options) {
  if (options.path.empty()) return run_mode({options.daemon, options.json});
  const HttpAnswer answer = DaemonClient(options.daemon).ask(options.path, options.body);
  const json result = json::parse(answer.body, nullptr, false);
  if (!result.is_object() || !result.contains("detail")) {
    throw std::runtime_error(options.path + " answers " + std::to_string(answer.status) + " " +
                             answer.body.substr(0, 200));
  }
  const bool done = answer.status == 200 && result.value("done", false);
  if (options.json) {
    std::cout << result.dump() << '\n';
  } else if (!done) {
    throw std::runtime_error(result.at("detail").get<std::string>());
  } else {
    const bool dry_run = json::parse(options.body).value("dry_run", false);
    const std::string detail = result.at("detail");
    if (!detail.empty()) std::cout << detail << '\n';
    const bool placed = result.contains("moves");
    if (placed) std::cout << placement_words(result, dry_run) << '\n';
    if (placed && !dry_run && (options.path == "/v1/rollback" || options.path == "/v1/import")) {
      std::cout << "held until `eplbctl resume`\n";
    }
    for (const json& warning : result.value("warnings", json::array())) {
      std::cerr << "eplbctl: warning: " << warning.get<std::string>() << '\n';
    }
  }
  return done ? 0 : 1;
}

std::string rebalance_body(bool dry_run) { return json{{"dry_run", dry_run}}.dump(); }

std::string pause_body(double seconds) {
  return seconds > 0 ? json{{"seconds", seconds}}.dump() : "{}";
}

std::string mode_body(const std::string& mode) {
  return json{{"mode", mode == "config" ? json(nullptr) : json(mode)}}.dump();
}

std::string rollback_body(int64_t version, bool dry_run) {
  json body = json::object();
  if (dry_run) body["dry_run"] = true;  // a daemon of an earlier release knows no such key
  if (version >= 0) body["version"] = version;
  return body.dump();
}

std::string resize_body(int32_t gpus, int32_t slots, bool dry_run) {
  return json{{"gpus", gpus}, {"slots", slots}, {"dry_run", dry_run}}.dump();
}

std::string gpu_body(int32_t gpu, const std::string& action) {
  return json{{"gpu", gpu}, {"action", action}}.dump();
}

}  // namespace eplbd
