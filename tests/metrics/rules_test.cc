// The shipped rules and the dashboard against a live registry, the runbook and their own tests.
// SPDX-License-Identifier: Apache-2.0
#include <yaml-cpp/yaml.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "metrics/metrics.h"
#include "tests/metrics/full_metrics.h"
#include "tests/metrics/scrape.h"
#include "tests/paths.h"

namespace eplbd {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(std::string(EPLBD_SOURCE_DIR) + "/" + path);
  INFO(path);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<YAML::Node> alerts() {
  std::vector<YAML::Node> out;
  for (const auto& group : YAML::Load(read_file("metrics/eplbd.rules.yml"))["groups"]) {
    for (const auto& rule : group["rules"]) {
      if (rule["alert"]) out.push_back(rule);
    }
  }
  return out;
}

// Names of metrics in an expression. What a recording rule makes has a colon before.
std::set<std::string> metrics_in(const std::string& expression) {
  const std::regex name(R"((^|[^:a-z_])((eplbd|process)_[a-z0-9_]+))");
  std::set<std::string> out;
  for (std::sregex_iterator it(expression.begin(), expression.end(), name), end; it != end; ++it) {
    out.insert((*it)[2]);
  }
  return out;
}

TEST_CASE("every alert waits, has a severity, and stands in the runbook") {
  const std::string runbook = read_file("docs/runbook.md");
  CHECK(alerts().size() >= 14);
  for (const YAML::Node& alert : alerts()) {
    const auto name = alert["alert"].as<std::string>();
    INFO(name);
    CHECK(alert["for"]);
    const auto severity = alert["labels"]["severity"].as<std::string>();
    CHECK((severity == "page" || severity == "ticket"));
    CHECK_FALSE(alert["annotations"]["summary"].as<std::string>().empty());
    std::string anchor = name;
    for (char& c : anchor) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    CHECK(alert["annotations"]["runbook_url"].as<std::string>() == "docs/runbook.md#" + anchor);
    CHECK(runbook.find("\n## " + name + "\n\n*" + severity + ".*") != std::string::npos);
  }
}

TEST_CASE("every alert has a case in which it fires and one in which it does not") {
  std::map<std::string, std::set<bool>> cases;
  for (const auto& test : YAML::Load(read_file("tests/metrics/rules_test.yml"))["tests"]) {
    for (const auto& check : test["alert_rule_test"]) {
      cases[check["alertname"].as<std::string>()].insert(check["exp_alerts"].size() > 0);
    }
  }
  for (const YAML::Node& alert : alerts()) {
    INFO(alert["alert"].as<std::string>());
    CHECK(cases[alert["alert"].as<std::string>()].size() == 2);
  }
}

TEST_CASE("nothing pages unless the mode is active") {
  for (const YAML::Node& alert : alerts()) {
    const auto name = alert["alert"].as<std::string>();
    // A daemon that does not answer cannot say its mode.
    if (alert["labels"]["severity"].as<std::string>() != "page" || name == "EplbdDown") continue;
    INFO(name);
    CHECK(alert["expr"].as<std::string>().find("eplbd_mode{mode=\"active\"} == 1") !=
          std::string::npos);
  }
}

TEST_CASE("rules ask only for metrics that a scrape has") {
  const Scrape scrape(full_metrics()->text());
  for (const auto& group : YAML::Load(read_file("metrics/eplbd.rules.yml"))["groups"]) {
    for (const auto& rule : group["rules"]) {
      for (const std::string& name : metrics_in(rule["expr"].as<std::string>())) {
        INFO(name);
        CHECK(scrape.has(name));
      }
    }
  }
}

TEST_CASE("the dashboard asks only for metrics that a scrape has, of the chosen deployment") {
  const Scrape scrape(full_metrics()->text());
  const auto dashboard = nlohmann::json::parse(read_file("metrics/grafana-dashboard.json"));
  std::set<std::string> variables;
  for (const auto& variable : dashboard["templating"]["list"]) variables.insert(variable["name"]);
  CHECK(variables == std::set<std::string>{"datasource", "deployment"});

  std::set<int> ids;
  int targets = 0;
  for (const auto& panel : dashboard["panels"]) {
    INFO(panel["title"]);
    CHECK(ids.insert(panel["id"].get<int>()).second);
    CHECK(panel["datasource"]["uid"] == "${datasource}");
    for (const auto& target : panel["targets"]) {
      const auto expression = target["expr"].get<std::string>();
      CHECK(target["datasource"]["uid"] == "${datasource}");
      CHECK(expression.find("{deployment=~\"$deployment\"}") != std::string::npos);
      CHECK_FALSE(metrics_in(expression).empty());
      for (const std::string& name : metrics_in(expression)) CHECK(scrape.has(name));
      ++targets;
    }
  }
  CHECK(targets > 30);
}

}  // namespace
}  // namespace eplbd
