// What the JSON Schema says of each kind of value. That it fits what is read: tests/integration.
// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <regex>

#include "config/config.h"

namespace eplbd {
namespace {

using Json = nlohmann::json;

Json key(const std::string& path) {
  return Json::parse(config_schema()).at(Json::json_pointer(path));
}

TEST_CASE("The schema tells numbers their bounds and their defaults", "[config]") {
  const Json imbalance = key("/properties/trigger/properties/imbalance");
  CHECK(imbalance.at("type") == "number");
  CHECK(imbalance.at("minimum") == 1.0);
  CHECK(imbalance.at("default") == 1.1);
  const Json sources = key("/properties/limits/properties/sources");
  CHECK(sources.at("type") == "integer");
  CHECK(sources.at("minimum") == 0);
  CHECK(sources.at("default") == 4096);
  CHECK(key("/properties/balancer/properties/seed").at("maximum") == UINT64_MAX);
}

TEST_CASE("The schema tells what must be given, and no default of it", "[config]") {
  CHECK(key("/required") == Json({"deployment", "topology"}));
  CHECK(key("/properties/topology/required") ==
        Json({"layers", "logical_experts", "slots", "gpus"}));
  const Json layers = key("/properties/topology/properties/layers");
  CHECK(layers.at("minimum") == 1);
  CHECK_FALSE(layers.contains("default"));
  CHECK(key("/properties/deployment").at("minLength") == 1);
}

TEST_CASE("The schema knows durations, and the word for none", "[config]") {
  const Json timeout = key("/properties/workers/properties/timeout");
  const std::regex duration(timeout.at("pattern").get<std::string>());
  CHECK(std::regex_match("1.5h", duration));
  CHECK_FALSE(std::regex_match("30", duration));
  CHECK_FALSE(std::regex_match("auto", duration));
  CHECK(timeout.at("default") == "30s");
  const Json half_life = key("/properties/window/properties/half_life");
  const std::regex automatic(half_life.at("pattern").get<std::string>());
  CHECK(std::regex_match("auto", automatic));
  CHECK(std::regex_match("250ms", automatic));
  CHECK(half_life.at("default") == "auto");
}

TEST_CASE("The schema knows names, among them YAML's booleans, and lists", "[config]") {
  const Json hierarchical = key("/properties/balancer/properties/hierarchical");
  CHECK(hierarchical.at("enum") == Json({"auto", true, false}));
  CHECK(key("/properties/mode").at("enum") == Json({"observe", "shadow", "active"}));
  const Json bind = key("/properties/endpoints/properties/counts/properties/bind");
  CHECK(bind.at("type") == "array");
  CHECK(bind.at("items").at("type") == "string");
}

TEST_CASE("The schema allows a section to be empty where nothing in it must be given", "[config]") {
  CHECK(key("/properties/http/type") == Json({"object", "null"}));
  CHECK(key("/properties/topology/type") == "object");
  CHECK(key("/properties/http/additionalProperties") == false);
}

}  // namespace
}  // namespace eplbd
