// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/history.h"

#include <iostream>
#include <nlohmann/json.hpp>

#include "eplbctl/text.h"

namespace eplbd {
namespace {

using nlohmann::json;

std::string date(const json& ts) {
  if (!ts.is_number()) return "-";
  return local_time(ts.get<double>(), "%F %T");
}

std::string imbalance(const json& value) {
  return value.is_number() ? format("{:.3f}", value.get<double>()) : "-";
}

}  // namespace

int run_history(const HistoryOptions& options) {
  const json history = DaemonClient(options.daemon).get("/api/v1/history");
  if (options.json) {
    std::cout << history.dump() << '\n';
    return 0;
  }
  std::cout << format("{:>8} {:>11}  {:19}  {:10} {:>7} {:>7} {:>7}\n", "version", "term",
                      "decided", "reason", "before", "after", "layers");
  for (const json& placement : history.at("placements")) {
    std::cout << format(
        "{:>8} {:>11}  {:19}  {:10} {:>7} {:>7} {:>7}\n", placement.at("version").get<uint64_t>(),
        placement.at("term").get<uint64_t>(), date(placement.at("ts")),
        placement.at("reason").get<std::string>(), imbalance(placement.at("imbalance_before")),
        imbalance(placement.at("imbalance_after")), placement.at("changed_layers").get<uint64_t>());
  }
  return 0;
}

}  // namespace eplbd
